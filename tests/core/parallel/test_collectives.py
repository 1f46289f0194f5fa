"""Collectives of two processes, against the same computed in one place with numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.parallel import collectives
from llm_run.core.parallel.groups import alone

from .inputs import drawn

X = [drawn(0), drawn(1)]
SUM, WHOLE = X[0] + X[1], np.concatenate(X, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sum", lambda rank: SUM),
        ("max", lambda rank: np.maximum(*X)),
        ("in place", lambda rank: SUM),
        ("not contiguous", lambda rank: SUM.transpose(2, 0, 1)),
        ("int64", lambda rank: [3]),
        ("gather 0", lambda rank: np.concatenate(X, 0)),
        ("gather -1", lambda rank: np.concatenate([x.transpose(2, 0, 1) for x in X], -1)),
        ("reduce scatter", lambda rank: np.split(SUM, 2, 1)[rank]),
        ("split", lambda rank: np.split(X[rank], 2, 1)[rank]),
        ("split -1", lambda rank: np.split(X[rank], 2, -1)[rank]),
        ("broadcast", lambda rank: X[1]),
        ("all to all", lambda rank: np.concatenate([np.split(x, 2, 1)[rank] for x in X], 0)),
        ("input", lambda rank: X[rank]),
    ],
)
def test_a_collective_gives_each_rank_its_result(
    two_ranks: list[dict[str, Any]], name: str, expected: Callable[[int], Any]
) -> None:
    for rank, found in enumerate(two_ranks):
        np.testing.assert_array_equal(np.array(found["collectives"][name], dtype="float32"), expected(rank))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_sums_of_sixteen_bits_are_finite_and_right(
    two_ranks: list[dict[str, Any]], dtype: str, tolerance: float
) -> None:
    for found in two_ranks:
        np.testing.assert_allclose(found["collectives"][dtype], SUM, atol=tolerance)


def test_ranks_that_come_with_other_shapes_or_to_other_calls_are_told_so(two_ranks: list[dict[str, Any]]) -> None:
    for found in two_ranks:
        assert found["mistakes"] == {
            "shapes": "ranks have lost step: rank 0 is at all_reduce(sum) on float32 [2] of all ranks; "
            "rank 1 is at all_reduce(sum) on float32 [3] of all ranks",
            "calls": "ranks have lost step: rank 0 is at broadcast(0) on float32 [2] of all ranks; "
            "rank 1 is at all_reduce(sum) on float32 [2] of all ranks",
        }


def test_a_group_of_one_gives_everything_back_as_it_came() -> None:
    x, group = paddle.to_tensor(drawn(0)), alone("mp")
    collectives.all_reduce_in_place(x, group)
    assert collectives.all_reduce(x, group) is x
    assert collectives.all_gather(x, group, dim=0) is x
    assert collectives.reduce_scatter(x, group, dim=0) is x
    assert collectives.split(x, group, dim=0) is x
    assert collectives.broadcast(x, group) is x
    assert collectives.all_to_all(x, group, split_dim=0, join_dim=1) is x
    np.testing.assert_array_equal(x.numpy(), drawn(0))
