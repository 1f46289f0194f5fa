"""An OPT against transformers: like the 125m, and like the 350m."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from llm_run.core.causal_lm import CausalLM
from llm_run.core.registry.manager import load_family

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 96,
    "max_position_embeddings": 128,
}
OPTS: dict[str, dict[str, Any]] = {
    "125m": {},
    "350m": {"do_layer_norm_before": False, "word_embed_proj_dim": 32},
    "projections before the norms": {"word_embed_proj_dim": 96},
    "norms behind the sums": {"do_layer_norm_before": False},
    "a head of its own": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize("changes", OPTS.values(), ids=OPTS.keys())
def test_logits_equal_those_of_transformers(
    changes: dict[str, Any], difference_to_transformers: Callable[..., float]
) -> None:
    assert difference_to_transformers(transformers.OPTConfig(**SHAPE | changes)) < 1e-4


@pytest.mark.parametrize("kind", ["125m", "350m"])
def test_generating_from_padded_prompts_equals_transformers(
    kind: str,
    random_peer: Callable[[Any], Any],
    load: Callable[[Path], CausalLM],
    difference_when_padded: Callable[[Any, CausalLM], float],
    tmp_path: Path,
) -> None:
    peer = random_peer(transformers.OPTConfig(**SHAPE | OPTS[kind]))
    assert difference_when_padded(peer, load(tmp_path)) < 1e-4


def test_the_longest_sequence_has_positions(logits: Callable[..., np.ndarray]) -> None:
    family = load_family("opt")
    model = family.build_model(family.card.config_class.from_fields({**SHAPE, "max_position_embeddings": 8}))
    assert model.embed_positions.weight.shape == [10, 64]
    assert np.isfinite(logits(model, np.arange(8)[None])).all()


def test_dropout_acts_in_training_only(logits: Callable[..., np.ndarray]) -> None:
    family, ids = load_family("opt"), np.arange(10)[None]
    shape = {**SHAPE, "dropout": 0.0}
    for kind in ("dropout", "attention_dropout"):
        model = family.build_model(family.card.config_class.from_fields({**shape, kind: 0.5}))
        assert np.abs(logits(model, ids) - logits(model, ids)).max() > 1e-4, kind
        model.eval()
        assert np.array_equal(logits(model, ids), logits(model, ids)), kind
