"""Token files, sampling order, packing, instruction data, chat rendering, tokenizers' common face."""
