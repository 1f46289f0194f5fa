"""Generations 2 and 3 against transformers, and generation 1 against PaddleNLP's class and the published formulas."""

from __future__ import annotations

import dataclasses
import json
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import transformers

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.ops import AttentionMask
from llm_run.core.registry.manager import find_family, load_family

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32}
QWENS: dict[str, Any] = {
    "2": transformers.Qwen2Config(**SHAPE),
    "2 tied": transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "2 yarn": transformers.Qwen2Config(**SHAPE, rope_parameters=YARN),
    "3": transformers.Qwen3Config(**SHAPE, head_dim=24),
    "3 tied": transformers.Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True),
    "3 yarn": transformers.Qwen3Config(**SHAPE, head_dim=16, rope_parameters=YARN),
}


@pytest.mark.parametrize("peer_config", QWENS.values(), ids=QWENS.keys())
def test_logits_equal_those_of_transformers(peer_config: Any, difference_to_transformers: Callable[..., float]) -> None:
    assert difference_to_transformers(peer_config) < 1e-4


@pytest.fixture(scope="module")
def golden(project: Path) -> dict[str, np.ndarray]:
    with np.load(project / "tests" / "golden" / "qwen_v1.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def first(golden: dict[str, np.ndarray], project: Path, tmp_path: Path) -> CausalLM:
    """Generation 1 out of a PaddleNLP directory, with the weights that the golden file was made of."""
    about = json.loads(str(golden["about"]))
    draw = runpy.run_path(str(project / "tests" / "golden" / "drawn.py"))["draw"]
    (tmp_path / "config.json").write_text(json.dumps(about["fields"]))
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(draw(about["shapes"], about["seed"]), protocol=4))
    fields = read_fields(tmp_path)
    family = find_family(fields)
    model = load_model(family, family.card.config_class.from_fields(fields), tmp_path)
    model.eval()
    return model


@pytest.mark.parametrize("length", [12, 20, 40])
def test_first_generation_equals_paddlenlp(
    length: int, first: CausalLM, golden: dict[str, np.ndarray], logits: Callable[..., np.ndarray]
) -> None:
    """Within ``seq_length``, and beyond it with dynamic NTK and logn attention."""
    got = logits(first, golden[f"ids_{length}"])
    assert np.abs(got - golden[f"logits_{length}"]).max() < 1e-4


def test_first_generation_stretches_nothing_while_training(
    first: CausalLM, golden: dict[str, np.ndarray], logits: Callable[..., np.ndarray]
) -> None:
    ids = golden["ids_40"]
    plain = load_family("qwen").build_model(
        dataclasses.replace(first.config, logn_length=0, rotary=dataclasses.replace(first.config.rotary, scaling=None))
    )
    plain.set_state_dict(first.state_dict())
    first.train()
    assert np.abs(logits(first, ids) - logits(plain, ids)).max() == 0.0
    first.eval()
    assert np.abs(logits(first, ids) - logits(plain, ids)).max() > 1e-2


def test_a_long_row_does_not_change_its_neighbour(
    first: CausalLM, golden: dict[str, np.ndarray], logits: Callable[..., np.ndarray]
) -> None:
    """Each row is stretched by its own length: a batch of a short and a long prompt gives what each gives alone."""
    long, short = golden["ids_40"], golden["ids_12"]
    padded = np.concatenate([np.zeros([1, 28], dtype=np.int64), short], axis=1)
    ids = paddle.to_tensor(np.concatenate([long, padded]))
    segments = np.ones([2, 40], dtype=np.int32)
    segments[1, :28] = 0
    positions = paddle.to_tensor(first.config.positions(ids.numpy(), segments, None))
    with paddle.no_grad():
        hidden = first(ids, positions, AttentionMask(segments_BT=paddle.to_tensor(segments)))
        batch = first.head(hidden).numpy()
    assert np.abs(batch[0] - golden["logits_40"][0]).max() < 1e-4
    assert np.abs(batch[1, 28:] - golden["logits_12"][0]).max() < 1e-4
