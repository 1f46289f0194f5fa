"""ChatGLM-6B in NumPy, float64, from the published formulas, with weights in PaddleNLP's names and layout.

Written apart from the plugin: fused projections, a dense mask, and the scaling of queries by layer as published.
Source: huggingface.co/THUDM/chatglm-6b, modeling_chatglm.py; Zeng et al. 2022, arXiv:2210.02414.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def logits(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], ids: Sequence[int]) -> np.ndarray:
    """Return the logits [S, V] of one row whose context ends before ``<sop>``."""
    parts = {name.removeprefix("chatglm.transformer."): value.astype(np.float64) for name, value in weights.items()}
    context = list(ids).index(config["bos_token_id"])
    blank = list(ids).index(config["gmask_token_id"] if config["gmask_token_id"] in ids else config["mask_token_id"])
    rows = [[place if place < context else blank, max(place - context + 1, 0)] for place in range(len(ids))]
    seen = np.array([[key <= query or key < context for key in range(len(ids))] for query in range(len(ids))])
    hidden = parts["word_embeddings.weight"][list(ids)]
    alpha = (2 * config["num_hidden_layers"]) ** 0.5
    for index in range(config["num_hidden_layers"]):
        layer = {
            name.removeprefix(f"layers.{index}."): value
            for name, value in parts.items()
            if name.startswith(f"layers.{index}.")
        }
        normed = norm(hidden, layer, "input_layernorm", config)
        hidden = alpha * normed + attention(normed, layer, config, np.array(rows), seen, index)
        normed = norm(hidden, layer, "post_attention_layernorm", config)
        inner = linear(normed, layer, "mlp.dense_h_to_4h")
        inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        hidden = alpha * normed + linear(inner, layer, "mlp.dense_4h_to_h")
    return norm(hidden, parts, "final_layernorm", config) @ parts["word_embeddings.weight"].T


def attention(
    x: np.ndarray,
    layer: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    rows: np.ndarray,
    seen: np.ndarray,
    index: int,
) -> np.ndarray:
    size, heads = len(x), config["num_attention_heads"]
    width = config["hidden_size"] // heads
    fused = linear(x, layer, "attention.query_key_value").reshape(size, heads, 3 * width)
    q, k, v = fused[..., :width], fused[..., width : 2 * width], fused[..., 2 * width :]
    half = width // 2
    q, k = (np.concatenate([turn(t[..., :half], rows[:, 0]), turn(t[..., half:], rows[:, 1])], axis=-1) for t in (q, k))
    scores = np.einsum("qhd,khd->hqk", q / (np.sqrt(width) * (index + 1)), k) * (index + 1)
    scores = np.where(seen, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return linear(np.einsum("hqk,khd->qhd", shares, v).reshape(size, -1), layer, "attention.dense")


def turn(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rotate entry i with entry i + width/2 by position * 10000 ** (-2 i / width)."""
    width = x.shape[-1]
    angles = positions[:, None, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    first, second = x[..., : width // 2], x[..., width // 2 :]
    turned = first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)
    return np.concatenate(turned, axis=-1)


def linear(x: np.ndarray, layer: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return x @ layer[f"{name}.weight"] + layer[f"{name}.bias"]


def norm(x: np.ndarray, layer: Mapping[str, np.ndarray], name: str, config: Mapping[str, Any]) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layernorm_epsilon"])
    return scaled * layer[f"{name}.weight"] + layer[f"{name}.bias"]
