"""Inference: cache, sampler, decoding loops, the generate and chat tasks."""
