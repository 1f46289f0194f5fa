"""Make baichuan.npz: logits of the class that PaddleNLP runs a baichuan with, LlamaForCausalLM with and without ALiBi.

Run in an environment with paddlenlp==3.0.0b4: python tests/golden/make_baichuan.py
The weights are not stored: ``drawn.draw`` makes them again from the seed and the stored names and shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from drawn import draw
from paddlenlp.transformers import LlamaConfig, LlamaForCausalLM

FILE = Path(__file__).with_name("baichuan.npz")
SEED = 20230915
SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}


def main() -> None:
    arrays = {}
    for kind, alibi in (("7b", False), ("13b", True)):
        fields = SHAPE | {"alibi": alibi}
        model = LlamaForCausalLM(LlamaConfig(**fields))
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        model.set_state_dict({name: paddle.to_tensor(array) for name, array in draw(shapes, SEED).items()})
        model.eval()
        ids = np.random.default_rng(7).integers(3, SHAPE["vocab_size"], [2, 24])
        with paddle.no_grad():
            logits = model(paddle.to_tensor(ids))
        logits = logits[0] if isinstance(logits, tuple) else logits
        arrays[f"about_{kind}"] = np.array(json.dumps({"seed": SEED, "fields": fields, "shapes": shapes}))
        arrays[f"ids_{kind}"], arrays[f"logits_{kind}"] = ids, logits.numpy()
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
