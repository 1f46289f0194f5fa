"""Pipeline parallelism: the model cut into stages, the order in which they work, and the passes through them."""
