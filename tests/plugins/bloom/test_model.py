"""A BLOOM against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from llm_run.core.causal_lm import CausalLM
from llm_run.core.registry.manager import load_family

SHAPE: dict[str, Any] = {"vocab_size": 300, "hidden_size": 72, "n_layer": 3, "n_head": 6}
BLOOMS: dict[str, dict[str, Any]] = {
    "six heads": {},
    "eight heads": {"n_head": 8},
    "another epsilon": {"layer_norm_epsilon": 1e-2},
    "a head of its own": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize("changes", BLOOMS.values(), ids=BLOOMS.keys())
def test_logits_equal_those_of_transformers(
    changes: dict[str, Any], difference_to_transformers: Callable[..., float]
) -> None:
    assert difference_to_transformers(transformers.BloomConfig(**SHAPE | changes)) < 1e-4


def test_generating_from_padded_prompts_equals_transformers(
    random_peer: Callable[[Any], Any],
    load: Callable[[Path], CausalLM],
    difference_when_padded: Callable[[Any, CausalLM], float],
    tmp_path: Path,
) -> None:
    peer = random_peer(transformers.BloomConfig(**SHAPE))
    assert difference_when_padded(peer, load(tmp_path)) < 1e-4


def test_dropout_acts_in_training_only(logits: Callable[..., np.ndarray]) -> None:
    family, ids = load_family("bloom"), np.arange(10)[None]
    for kind in ("hidden_dropout", "attention_dropout"):
        model = family.build_model(family.card.config_class.from_fields({**SHAPE, kind: 0.5}))
        assert np.abs(logits(model, ids) - logits(model, ids)).max() > 1e-4, kind
        model.eval()
        assert np.array_equal(logits(model, ids), logits(model, ids)), kind
