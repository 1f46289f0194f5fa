"""Make qwen_v1.npz: logits of PaddleNLP's QWenForCausalLM. Run in an environment with paddlenlp==3.0.0b4:

python tests/golden/make_qwen_v1.py

The weights are not stored: ``drawn.draw`` makes them again from the seed and the stored names and shapes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
from drawn import draw
from paddlenlp.transformers import QWenConfig, QWenForCausalLM

HERE = Path(__file__).parent
SEED = 20231207
FIELDS = {
    "model_type": "qwen",
    "architectures": ["QWenForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "intermediate_size": 192,
    "seq_length": 16,
    "max_position_embeddings": 64,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "no_bias": True,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
}
LENGTHS = (12, 20, 40)
"""Within seq_length; beyond it (NTK factor 3); beyond twice of it (NTK factor 7)."""


def main() -> None:
    model = QWenForCausalLM(QWenConfig(**FIELDS))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.set_state_dict({name: paddle.to_tensor(array) for name, array in draw(shapes, SEED).items()})
    model.eval()
    arrays = {"about": np.array(json.dumps({"seed": SEED, "fields": FIELDS, "shapes": shapes}))}
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(0, FIELDS["vocab_size"], [1, length])
        with paddle.no_grad():
            logits = model(paddle.to_tensor(ids))
        logits = logits[0] if isinstance(logits, tuple) else logits
        arrays[f"ids_{length}"], arrays[f"logits_{length}"] = ids, logits.numpy()
    np.savez_compressed(HERE / "qwen_v1.npz", **arrays)


if __name__ == "__main__":
    main()
