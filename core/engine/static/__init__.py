"""Static export: a model as one graph that Paddle's inference library runs without the model's Python code."""
