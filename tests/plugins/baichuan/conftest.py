"""A baichuan out of a llama of transformers: the same weights under the published names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import save_file

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 128,
}


@pytest.fixture
def llama(random_peer: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a function that makes a llama with random weights."""

    def make(**changes: Any) -> Any:
        return random_peer(transformers.LlamaConfig(**SHAPE | changes))

    return make


@pytest.fixture
def write_baichuan(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a llama as a baichuan's directory, with ``W_pack`` and the published fields."""

    def write(peer: Any, *, second: bool = False, alibi: bool = False) -> Path:
        weights = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
        for layer in range(peer.config.num_hidden_layers):
            path = f"model.layers.{layer}.self_attn."
            fused = [weights.pop(f"{path}{name}_proj.weight") for name in "qkv"]
            weights[f"{path}W_pack.weight"] = np.concatenate(fused)
        folder = tmp_path / "baichuan"
        folder.mkdir()
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, folder / "model.safetensors")
        fields = {
            "architectures": ["BaichuanForCausalLM"],
            "model_type": "baichuan",
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "rms_norm_eps": peer.config.rms_norm_eps,
            "tie_word_embeddings": False,
            "norm_head": second,
            "model_max_length": 128,
            **{name: getattr(peer.config, name) for name in SHAPE if name != "max_position_embeddings"},
            **({} if alibi else {"max_position_embeddings": 128}),
        }
        (folder / "config.json").write_text(json.dumps(fields))
        return folder

    return write
