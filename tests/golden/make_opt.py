"""Make opt.npz: logits of PaddleNLP's OPTForCausalLM. Run in an environment with paddlenlp==3.0.0b4:

python tests/golden/make_opt.py

PaddleNLP's head is a matrix of its own where OPT's is the embedding; it gets the embedding's values here. Beside
projections it has the wrong shape, and the embedding itself is multiplied with instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from paddlenlp.transformers import OPTConfig, OPTForCausalLM
from paddlenlp_case import describe

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
}
EMBEDDING, HEAD = "opt.embeddings.word_embeddings.weight", "lm_head.decoder_weight"


def main() -> None:
    model = OPTForCausalLM(OPTConfig(**SHAPE, word_embed_proj_dim=32))
    arrays = describe("plain", model, {HEAD: EMBEDDING})
    model = OPTForCausalLM(OPTConfig(**SHAPE, word_embed_proj_dim=16, normalize_before=False))
    embedding = model.opt.embeddings.word_embeddings.weight
    model.lm_head.decoder_weight = embedding
    arrays |= describe(
        "projected",
        model,
        {HEAD: EMBEDDING},
        lambda ids: paddle.matmul(model.opt(ids), embedding, transpose_y=True),
    )
    np.savez_compressed(Path(__file__).with_name("opt.npz"), **arrays)


if __name__ == "__main__":
    main()
