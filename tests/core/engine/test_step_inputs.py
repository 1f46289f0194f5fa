"""What the C++ step is told of tokens, against what the model tells its own blocks."""

from __future__ import annotations

import ctypes

import numpy as np
import paddle
import pytest

from llm_run.core.engine.step_inputs import EmbeddingRows, PositionTables
from llm_run.core.ops.float_rows import FloatRows
from llm_run.core.ops.mask import AttentionMask
from llm_run.core.registry.manager import load_family


def model_of(name: str, size: str = "tiny"):
    family = load_family(name)
    paddle.seed(3)
    model = family.build_model(family.card.sizes[size])
    model.eval()
    return model


def read(rows: FloatRows, like: np.ndarray) -> np.ndarray:
    """As many of the rows as an array has."""
    return np.array((ctypes.c_float * like.size).from_address(rows.address)).reshape(like.shape)


def told(model, positions: list[int]) -> list[np.ndarray | None]:
    context = model.context(paddle.to_tensor([positions]), AttentionMask())
    tables = (*(context.rotary or (None, None)), context.query_scale_BS)
    return [None if table is None else table[0].numpy() for table in tables]


def agree(found: list[FloatRows | None], expected: list[np.ndarray | None]) -> None:
    assert len(found) == len(expected) == 3
    for rows, table in zip(found, expected, strict=True):
        assert (rows is None) == (table is None)
        if rows is not None and table is not None:
            np.testing.assert_allclose(read(rows, table), table, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "bloom", "opt", "gpt3"])
def test_embeddings_are_the_models_own(name):
    model = model_of(name)
    ids, positions = [5, 9, 5, 70], [0, 1, 2, 0]
    rows = EmbeddingRows(model)
    for count in (1, 4, 2):
        expected = model.embed(paddle.to_tensor([ids[:count]]), paddle.to_tensor([positions[:count]]))[0].numpy()
        np.testing.assert_allclose(read(rows.rows(ids[:count], positions[:count]), expected), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "bloom", "opt"])
def test_tables_of_positions_are_the_models_own_however_far_they_reach(name):
    model = model_of(name)
    tables = PositionTables(model)
    for positions, starts in (([0], [0, 1]), ([7, 8, 9, 0, 1500], [0, 3, 4, 5]), ([3], [0, 1])):
        agree(tables.rows(positions, starts), told(model, positions))


def test_a_rotation_that_depends_on_the_length_is_that_of_each_sequence_alone():
    model = model_of("qwen", "tiny-v1")
    assert model.config.rotary.depends_on_length and model.config.logn_length
    near, far = list(range(4)), list(range(3 * model.config.max_positions, 3 * model.config.max_positions + 2))
    alone = zip(told(model, near), told(model, far), strict=True)
    expected = [None if one is None else np.concatenate([one, other]) for one, other in alone]
    agree(PositionTables(model).rows(near + far, [0, 4, 6]), expected)
    together = told(model, near + far)
    assert not np.allclose(together[0], expected[0])
