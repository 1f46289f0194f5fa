"""Gradients through collectives, against the chain rule written down over all ranks at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.parallel import differentiable
from llm_run.core.parallel.groups import alone

from .inputs import SHAPE, drawn

X = [drawn(0), drawn(1)]
Pair = Callable[[int], np.ndarray]


def pulled(shape: tuple[int, ...], rank: int) -> np.ndarray:
    """Return the gradient that the program pulls back on ``rank``."""
    return np.arange(np.prod(shape), dtype="float32").reshape(shape) + 10 * rank


def halves(x: np.ndarray, dim: int) -> list[np.ndarray]:
    return np.split(x, 2, dim)


HALF, DOUBLE, TURNED = (4, 3, 2), (4, 12, 2), (2, 12, 2)


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("copy_then_reduce", lambda r: X[r], lambda r: pulled(SHAPE, 0) + pulled(SHAPE, 1)),
        ("reduce_then_copy", lambda r: X[0] + X[1], lambda r: pulled(SHAPE, r)),
        ("gather_then_split", lambda r: np.concatenate(X, 1), lambda r: halves(pulled(DOUBLE, r), 1)[r]),
        (
            "split_then_gather",
            lambda r: halves(X[r], 1)[r],
            lambda r: np.concatenate([pulled(HALF, 0), pulled(HALF, 1)], 1),
        ),
        (
            "gather_then_scatter",
            lambda r: np.concatenate(X, 1),
            lambda r: halves(pulled(DOUBLE, 0) + pulled(DOUBLE, 1), 1)[r],
        ),
        (
            "scatter_then_gather",
            lambda r: halves(X[0] + X[1], 1)[r],
            lambda r: np.concatenate([pulled(HALF, 0), pulled(HALF, 1)], 1),
        ),
        (
            "exchange",
            lambda r: np.concatenate([halves(x, 0)[r] for x in X], 1),
            lambda r: np.concatenate([halves(pulled(TURNED, o), 1)[r] for o in range(2)], 0),
        ),
    ],
)
def test_values_and_gradients_follow_the_chain_rule(
    two_ranks: list[dict[str, Any]], name: str, forward: Pair, backward: Pair
) -> None:
    for rank, found in enumerate(two_ranks):
        np.testing.assert_array_equal(np.array(found["differentiable"][name]["y"], "float32"), forward(rank))
        np.testing.assert_array_equal(np.array(found["differentiable"][name]["gradient"], "float32"), backward(rank))


def test_a_group_of_one_costs_nothing() -> None:
    x, group = paddle.ones([2, 2]), alone("mp")
    assert differentiable.copy_then_reduce(x, group) is x
    assert differentiable.reduce_then_copy(x, group) is x
    assert differentiable.exchange(x, group, split_dim=0, join_dim=1) is x
    for call in (
        differentiable.gather_then_split, differentiable.split_then_gather, differentiable.gather_then_scatter,
        differentiable.scatter_then_gather,
    ):  # fmt: skip
        assert call(x, group, dim=0) is x
