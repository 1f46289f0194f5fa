"""How other programs store integer weights in a Hugging Face directory: GPTQ, AWQ, compressed-tensors."""
