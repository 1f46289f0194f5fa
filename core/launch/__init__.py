"""Processes: the environment that Paddle wants, set before it is imported."""
