"""A ChatGLM2 out of a GLM-4 of transformers: the same weights under the published names."""

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
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "attention_bias": True,
    "pad_token_id": 0,
}


@pytest.fixture
def glm(random_peer: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a function that makes a GLM-4 with random weights, given its base and a factor on positions."""

    def make(*, base: float = 10000.0, factor: float | None = None, **changes: Any) -> Any:
        rope = {"rope_theta": base, "partial_rotary_factor": 0.5, "rope_type": "default"}
        if factor is not None:
            rope |= {"rope_type": "linear", "factor": factor}
        return random_peer(transformers.GlmConfig(**SHAPE | changes, rope_parameters=rope))

    return make


def published(peer: Any) -> dict[str, np.ndarray]:
    """The weights of a GLM-4 under the names of a ChatGLM2."""
    state = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in peer.state_dict().items()}
    weights = {
        "transformer.embedding.word_embeddings.weight": state["model.embed_tokens.weight"],
        "transformer.encoder.final_layernorm.weight": state["model.norm.weight"],
        "transformer.output_layer.weight": state["lm_head.weight"],
    }
    for layer in range(peer.config.num_hidden_layers):
        theirs, ours = f"model.layers.{layer}.", f"transformer.encoder.layers.{layer}."
        for part in ("weight", "bias") if peer.config.attention_bias else ("weight",):
            fused = [state[f"{theirs}self_attn.{name}_proj.{part}"] for name in "qkv"]
            weights[f"{ours}self_attention.query_key_value.{part}"] = np.concatenate(fused)
        for name, foreign in {
            "self_attention.dense": "self_attn.o_proj",
            "mlp.dense_h_to_4h": "mlp.gate_up_proj",
            "mlp.dense_4h_to_h": "mlp.down_proj",
            "input_layernorm": "input_layernorm",
            "post_attention_layernorm": "post_attention_layernorm",
        }.items():
            weights[f"{ours}{name}.weight"] = state[f"{theirs}{foreign}.weight"]
    return weights


@pytest.fixture
def write_chatglm2(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a GLM-4 as a ChatGLM2's directory."""

    def write(peer: Any, **changes: Any) -> Path:
        folder = tmp_path / "chatglm2"
        folder.mkdir()
        # The published files hold a rotary table.
        table = {"transformer.rotary_pos_emb.inv_freq": np.ones(4, dtype=np.float32)}
        save_file(published(peer) | table, folder / "model.safetensors")
        config = peer.config
        fields = {
            "model_type": "chatglm",
            "architectures": ["ChatGLMModel"],
            "add_bias_linear": False,
            "add_qkv_bias": config.attention_bias,
            "ffn_hidden_size": config.intermediate_size,
            "hidden_size": config.hidden_size,
            "kv_channels": config.head_dim,
            "layernorm_epsilon": config.rms_norm_eps,
            "multi_query_attention": True,
            "multi_query_group_num": config.num_key_value_heads,
            "num_attention_heads": config.num_attention_heads,
            "num_layers": config.num_hidden_layers,
            "original_rope": True,
            "padded_vocab_size": config.vocab_size,
            "post_layer_norm": True,
            "rmsnorm": True,
            "seq_length": 8192,
            "tie_word_embeddings": False,
        }
        (folder / "config.json").write_text(json.dumps(fields | changes))
        return folder

    return write


@pytest.fixture
def published_weights() -> Callable[[Any], dict[str, np.ndarray]]:
    """The weights of a GLM-4 under the names of a ChatGLM2."""
    return published
