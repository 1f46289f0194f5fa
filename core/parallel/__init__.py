"""Several processes as one: plan, mesh, groups, collectives, and what pipeline stages send each other."""
