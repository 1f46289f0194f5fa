"""A GPT against GPT-2 of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from llm_run.core.causal_lm import CausalLM
from llm_run.core.registry.manager import load_family

SHAPE: dict[str, Any] = {"vocab_size": 300, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}
GPTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "exact gelu": {"activation_function": "gelu"},
    "another name of the same gelu": {"activation_function": "gelu_pytorch_tanh"},
    "narrow feed-forward": {"n_inner": 96},
    "another epsilon": {"layer_norm_epsilon": 1e-2},
    "a head of its own": {"tie_word_embeddings": False},
    "upcast scores": {"reorder_and_upcast_attn": True},
}


@pytest.mark.parametrize("changes", GPTS.values(), ids=GPTS.keys())
def test_logits_equal_those_of_transformers(
    changes: dict[str, Any], difference_to_transformers: Callable[..., float]
) -> None:
    assert difference_to_transformers(transformers.GPT2Config(**SHAPE | changes)) < 1e-4


def test_generating_from_padded_prompts_equals_transformers(
    random_peer: Callable[[Any], Any],
    load: Callable[[Path], CausalLM],
    difference_when_padded: Callable[[Any, CausalLM], float],
    tmp_path: Path,
) -> None:
    peer = random_peer(transformers.GPT2Config(**SHAPE))
    assert difference_when_padded(peer, load(tmp_path)) < 1e-4


def test_dropout_acts_in_training_only(logits: Callable[..., np.ndarray]) -> None:
    family = load_family("gpt3")
    shape = {**SHAPE, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    ids = np.arange(10)[None]
    for kind in ("embd_pdrop", "attn_pdrop", "resid_pdrop"):
        model = family.build_model(family.card.config_class.from_fields({**shape, kind: 0.5}))
        assert np.abs(logits(model, ids) - logits(model, ids)).max() > 1e-4, kind
        model.eval()
        assert np.array_equal(logits(model, ids), logits(model, ids)), kind
