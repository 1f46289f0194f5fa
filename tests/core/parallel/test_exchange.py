"""What one pipeline stage sends, the next one gets."""

from __future__ import annotations

from typing import Any

import numpy as np

from .inputs import drawn


def test_tensors_of_all_shapes_and_dtypes_arrive_as_they_were_sent(two_ranks: list[dict[str, Any]]) -> None:
    found = two_ranks[1]["exchange"]
    assert found["dtypes"] == [
        "paddle.float32", "paddle.int64", "paddle.float32", "paddle.bool", "paddle.bfloat16", "paddle.float32",
    ]  # fmt: skip
    assert found["carries no gradient"]
    floats, numbers, single, flags, rounded, empty = found["received"]
    np.testing.assert_array_equal(np.array(floats, "float32"), drawn(0))
    assert (numbers, single, flags) == ([1, 2, 3], 2.5, [1, 0])
    np.testing.assert_allclose(rounded, drawn(0), rtol=2**-8)
    assert empty == []


def test_both_sides_of_a_swap_get_the_others_tensor(two_ranks: list[dict[str, Any]]) -> None:
    first, second = (np.array(found["exchange"]["swapped"], "float32") for found in two_ranks)
    np.testing.assert_array_equal(first, drawn(1, "y"))
    np.testing.assert_array_equal(second, drawn(0, "y").transpose(1, 0, 2))
