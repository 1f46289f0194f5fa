"""Tensor and sequence parallelism, as a transformation of a plain model by the names of its layers."""
