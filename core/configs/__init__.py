"""Ready-made configurations: one recipe for each task in ``tasks/``, and what a family does otherwise."""
