"""What a model is worth: perplexity of text, answers against references, benchmarks."""
