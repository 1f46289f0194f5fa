"""GLM in NumPy, float64, from the published formulas, with weights in PaddleNLP's names and layout.

Written apart from the plugin: fused projections and a dense mask.
Source: Du et al. 2022, arXiv:2103.10360; github.com/THUDM/GLM, model/modeling_glm.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def logits(
    weights: Mapping[str, np.ndarray], config: Mapping[str, Any], ids: Sequence[int], *, context: int, blank: int
) -> np.ndarray:
    """Return the logits [S, V] of one row: ``context`` tokens, then what fills the blank at place ``blank``."""
    parts = {name.removeprefix("glm."): value.astype(np.float64) for name, value in weights.items()}
    places = [place if place < context else blank for place in range(len(ids))]
    blocks = [max(place - context + 1, 0) for place in range(len(ids))]
    seen = np.array([[key <= query or key < context for key in range(len(ids))] for query in range(len(ids))])
    hidden = parts["word_embeddings.weight"][list(ids)]
    hidden = hidden + parts["transformer.position_embeddings.weight"][places]
    hidden = hidden + parts["transformer.block_position_embeddings.weight"][blocks]
    for index in range(config["num_layers"]):
        start = f"transformer.layers.{index}."
        layer = {name.removeprefix(start): value for name, value in parts.items() if name.startswith(start)}
        hidden = hidden + attention(norm(hidden, layer, "input_layernorm", config), layer, config, seen)
        inner = linear(norm(hidden, layer, "post_attention_layernorm", config), layer, "mlp.dense_h_to_4h")
        inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        hidden = hidden + linear(inner, layer, "mlp.dense_4h_to_h")
    return norm(hidden, parts, "transformer.final_layernorm", config) @ parts["word_embeddings.weight"].T


def attention(
    x: np.ndarray, layer: Mapping[str, np.ndarray], config: Mapping[str, Any], seen: np.ndarray
) -> np.ndarray:
    size, heads = len(x), config["num_attention_heads"]
    fused = linear(x, layer, "attention.query_key_value").reshape(size, 3, heads, -1)
    q, k, v = fused[:, 0], fused[:, 1], fused[:, 2]
    scores = np.where(seen, np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1]), -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return linear(np.einsum("hqk,khd->qhd", shares, v).reshape(size, -1), layer, "attention.dense")


def linear(x: np.ndarray, layer: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return x @ layer[f"{name}.weight"] + layer[f"{name}.bias"]


def norm(x: np.ndarray, layer: Mapping[str, np.ndarray], name: str, config: Mapping[str, Any]) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layernorm_epsilon"])
    return scaled * layer[f"{name}.weight"] + layer[f"{name}.bias"]
