from __future__ import annotations

import numpy as np
import pytest

from llm_run.core.parallel.slices import Part, Slice

WHOLE = np.arange(60).reshape(10, 6)


def held(part: Part, whole: np.ndarray = WHOLE) -> np.ndarray:
    return np.concatenate([whole[block.index()] for block in part.slices], axis=part.dim)


def test_what_two_blocks_share_is_the_block_in_both() -> None:
    shared = Slice((0, 1), (5, 4)).common(Slice((3, 2), (9, 6)))
    assert shared == Slice((3, 2), (5, 4))
    assert (shared.shape, shared.size) == ((2, 2), 4)
    assert Slice((0,), (3,)).common(Slice((3,), (5,))) is None


def test_a_block_can_be_counted_from_elsewhere() -> None:
    block = Slice((3, 2), (5, 4))
    np.testing.assert_array_equal(WHOLE[2:, 1:][block.seen_from((2, 1)).index()], WHOLE[block.index()])


def test_blocks_lie_side_by_side_along_one_dimension() -> None:
    part = Part.along((10, 6), 1, [(0, 2), (4, 5)])
    assert part.local_shape == (10, 3)
    local = held(part)
    for here, there in part.blocks():
        np.testing.assert_array_equal(local[here.index()], WHOLE[there.index()])


@pytest.mark.parametrize(
    "part",
    [Part.whole((10, 6)), Part.along((10, 6), 0, [(1, 3), (6, 9)]), Part.along((10, 6), -1, [(0, 2), (4, 5)])],
    ids=["whole", "rows", "columns"],
)
def test_rows_of_a_part_are_the_rows_of_the_ranks_own_tensor(part: Part) -> None:
    local = held(part)
    for first in range(len(local) + 1):
        for end in range(first, len(local) + 1):
            rows = part.rows(first, end)
            assert rows.local_shape == local[first:end].shape
            np.testing.assert_array_equal(held(rows), local[first:end])


def test_a_tensor_without_dimensions_is_a_part_of_one_value() -> None:
    assert list(Part.whole(()).blocks()) == [(Slice((), ()), Slice((), ()))]
    assert Slice((), ()).common(Slice((), ())) == Slice((), ())
