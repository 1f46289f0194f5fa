"""A llama against transformers, in the ways in which llamas differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import transformers

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **values}}


LLAMAS: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "all heads": {"num_key_value_heads": 4},
    "one key/value head": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 24},
    "another base": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "linear": rope("linear", factor=4.0),
    "dynamic": {"max_position_embeddings": 32, **rope("dynamic", factor=4.0)},
    "llama3": rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
    ),
    "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=32),
}


@pytest.mark.parametrize("changes", LLAMAS.values(), ids=LLAMAS.keys())
def test_logits_equal_those_of_transformers(
    changes: dict[str, Any], difference_to_transformers: Callable[..., float]
) -> None:
    assert difference_to_transformers(transformers.LlamaConfig(**SHAPE | changes)) < 1e-4


def test_old_spelling_of_the_rotary_fields_gives_the_same_logits(
    difference_to_transformers: Callable[..., float],
) -> None:
    peer = transformers.LlamaConfig(**SHAPE, rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0})
    scaling = {"type": "linear", "factor": 2.0}
    assert difference_to_transformers(peer, rope_parameters=None, rope_theta=5e5, rope_scaling=scaling) < 1e-4


def test_a_mistral_without_window_is_a_llama(difference_to_transformers: Callable[..., float]) -> None:
    assert difference_to_transformers(transformers.MistralConfig(**SHAPE, sliding_window=None)) < 1e-4
