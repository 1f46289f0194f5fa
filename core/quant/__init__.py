"""Quantization: observers, smoothing, GPTQ and AWQ, the layers that compute with integers, and their file formats."""
