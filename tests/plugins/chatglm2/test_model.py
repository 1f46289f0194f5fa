"""A ChatGLM2 against a GLM-4 of transformers, which is the same network with other names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm_run.core.causal_lm import CausalLM

IDS = np.random.default_rng(0).integers(0, 300, [2, 60])
# What the peer is made of, and what the config.json says.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "two groups": ({}, {}),
    "one group": ({"num_key_value_heads": 1}, {}),
    "wide heads": ({"head_dim": 24}, {}),
    "no bias": ({"attention_bias": False}, {}),
    "a chatglm3 for long texts": ({"base": 500000.0}, {"rope_ratio": 50, "_name_or_path": "THUDM/chatglm3-6b-32k"}),
    "a chatglm2 for long texts": ({"factor": 4.0}, {"rope_ratio": 4, "_name_or_path": "THUDM/chatglm2-6b-32k"}),
}


@pytest.mark.parametrize(("peer_changes", "fields"), KINDS.values(), ids=KINDS.keys())
def test_logits_equal_those_of_a_glm_of_transformers(
    peer_changes: dict[str, Any],
    fields: dict[str, Any],
    glm: Callable[..., Any],
    write_chatglm2: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
) -> None:
    peer = glm(**peer_changes)
    model = load(write_chatglm2(peer, **fields))
    with torch.no_grad():
        expected = peer(torch.tensor(IDS)).logits.numpy()
    assert np.abs(expected).max() > 1.0
    assert np.abs(logits(model, IDS) - expected).max() < 1e-4


def test_texts_longer_than_2048_tokens_are_read(
    glm: Callable[..., Any],
    write_chatglm2: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
) -> None:
    """PaddleNLP looks positions up in a table of max_sequence_length rows, and fails beyond them."""
    peer = glm(max_position_embeddings=4096)
    model = load(write_chatglm2(peer, max_sequence_length=2048))
    ids = np.random.default_rng(1).integers(0, 300, [1, 2100])
    with torch.no_grad():
        expected = peer(torch.tensor(ids)).logits.numpy()[:, -20:]
    assert model.config.max_positions == 8192
    assert np.abs(logits(model, ids)[:, -20:] - expected).max() < 1e-4
