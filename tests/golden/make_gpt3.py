"""Make gpt3.npz: logits of PaddleNLP's GPTForCausalLM. Run in an environment with paddlenlp==3.0.0b4:

python tests/golden/make_gpt3.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from paddlenlp.transformers import GPTConfig, GPTForCausalLM
from paddlenlp_case import describe

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
}
TIED = {"lm_head.weight": "gpt.embeddings.word_embeddings.weight"}

if __name__ == "__main__":
    cases = {
        name: GPTForCausalLM(GPTConfig(**SHAPE, fuse_attention_qkv=is_fused))
        for name, is_fused in (("split", False), ("fused", True))
    }
    arrays = [describe(name, model, TIED) for name, model in cases.items()]
    np.savez_compressed(Path(__file__).with_name("gpt3.npz"), **arrays[0], **arrays[1])
