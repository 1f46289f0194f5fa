"""Make paddlenlp_llama/ and paddlenlp_qwen2/: model directories as PaddleNLP writes them, each with its logits.

Run in an environment with paddlenlp==3.0.0b4: python tests/golden/make_paddlenlp.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from drawn import draw
from paddlenlp.transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

HERE = Path(__file__).parent
SHAPE = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def make(model: paddle.nn.Layer, directory: Path) -> None:
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.set_state_dict({name: paddle.to_tensor(array) for name, array in draw(shapes, 2).items()})
    model.eval()
    model.save_pretrained(str(directory), safe_serialization=False)
    ids = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], [2, 40])
    with paddle.no_grad():
        logits = model(paddle.to_tensor(ids))
    logits = logits[0] if isinstance(logits, tuple) else logits
    np.savez_compressed(directory / "logits.npz", ids=ids, logits=logits.numpy())
    (directory / "generation_config.json").unlink()


if __name__ == "__main__":
    llama = LlamaConfig(**SHAPE, rms_norm_eps=1e-5, rope_scaling_type="linear", rope_scaling_factor=2.0)
    make(LlamaForCausalLM(llama), HERE / "paddlenlp_llama")
    qwen2 = Qwen2Config(**SHAPE, rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=False)
    make(Qwen2ForCausalLM(qwen2), HERE / "paddlenlp_qwen2")
