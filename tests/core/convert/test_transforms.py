from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_run.core.convert.transforms import foreign_shapes, to_ours, to_theirs
from llm_run.core.registry.facts import WeightRule

HEADS, SIZE, HIDDEN = 4, 6, 5


def _matrix(rows: int, columns: int = HIDDEN) -> np.ndarray:
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)


RULES: dict[str, tuple[WeightRule, list[tuple[int, ...]]]] = {
    "copy": (WeightRule(("a",), ("x",)), [(3, 4)]),
    "transpose": (WeightRule(("a",), ("x",), transpose=True), [(3, 4)]),
    "transposed bias": (WeightRule(("a",), ("x",), transpose=True), [(4,)]),
    "join": (WeightRule(("a",), ("x", "y"), transpose=True), [(3, 4), (3, 4)]),
    "join unequal": (WeightRule(("a",), ("x", "y", "z"), transpose=True, sizes=(4, 2, 2)), [(4, 5), (2, 5), (2, 5)]),
    "cut": (WeightRule(("a", "b", "c"), ("x",), transpose=True), [(12, 5)]),
    "cut unequal": (WeightRule(("a", "b", "c"), ("x",), transpose=True, sizes=(8, 2, 2)), [(12, 5)]),
    "cut rows": (WeightRule(("a", "b"), ("x",), axis=0), [(6, 5)]),
    "interleaved": (WeightRule(("a",), ("x",), transpose=True, interleave=(HEADS, 3)), [(HEADS * 3 * SIZE, HIDDEN)]),
    "interleaved and cut": (
        WeightRule(("a", "b", "c"), ("x",), transpose=True, interleave=(HEADS, 3)), [(HEADS * 3 * SIZE, HIDDEN)],
    ),
    "interleaved bias": (WeightRule(("a",), ("x",), interleave=(HEADS, 3)), [(HEADS * 3 * SIZE,)]),
    "rotary": (WeightRule(("a",), ("x",), transpose=True, permute_rotary=(HEADS,)), [(HEADS * SIZE, HIDDEN)]),
    "rotary bias": (WeightRule(("a",), ("x",), permute_rotary=(HEADS,)), [(HEADS * SIZE,)]),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_there_and_back_is_equal_to_the_bit(name: str, dtype: type) -> None:
    rule, shapes = RULES[name]
    foreign = [np.random.default_rng(0).integers(0, 1 << 16, shape).astype(dtype) for shape in shapes]
    ours = to_ours(rule, foreign)
    assert len(ours) == len(rule.ours)
    assert foreign_shapes(rule, [part.shape for part in ours]) == shapes
    back = to_theirs(rule, ours)
    assert all(
        np.array_equal(one, other) and one.dtype == other.dtype for one, other in zip(foreign, back, strict=True)
    )


def test_a_transposed_matrix_is_ours_with_its_outputs_last() -> None:
    (ours,) = to_ours(RULES["transpose"][0], [_matrix(3, 4)])
    assert np.array_equal(ours, _matrix(3, 4).T)


def test_a_fused_matrix_is_cut_in_the_order_of_the_rule() -> None:
    q, k, v = _matrix(8), _matrix(2) + 100, _matrix(2) + 200
    parts = to_ours(RULES["cut unequal"][0], [np.concatenate([q, k, v])])
    assert all(np.array_equal(part, expected.T) for part, expected in zip(parts, (q, k, v), strict=True))


def test_parts_of_each_head_are_gathered() -> None:
    """BLOOM stores q, k and v of head 0, then those of head 1, and so on."""
    q, k, v = (_matrix(HEADS * SIZE) + offset for offset in (0, 1000, 2000))
    per_head = [part[h * SIZE : (h + 1) * SIZE] for h in range(HEADS) for part in (q, k, v)]
    parts = to_ours(RULES["interleaved and cut"][0], [np.concatenate(per_head)])
    assert all(np.array_equal(part, expected.T) for part, expected in zip(parts, (q, k, v), strict=True))


def test_rotary_pairs_become_halves() -> None:
    """Row 2i of a head in the file is row i of ours, row 2i + 1 is row i + D/2."""
    foreign = _matrix(HEADS * SIZE)
    (ours,) = to_ours(RULES["rotary"][0], [foreign])
    for head in range(HEADS):
        for pair in range(SIZE // 2):
            assert np.array_equal(ours.T[head * SIZE + pair], foreign[head * SIZE + 2 * pair])
            assert np.array_equal(ours.T[head * SIZE + SIZE // 2 + pair], foreign[head * SIZE + 2 * pair + 1])


def test_the_rotary_order_is_the_one_that_llama_cpp_writes() -> None:
    weights = _matrix(HEADS * SIZE)
    written = weights.reshape(HEADS, 2, SIZE // 2, HIDDEN).swapaxes(1, 2).reshape(weights.shape)
    (ours,) = to_ours(RULES["rotary"][0], [written])
    assert np.array_equal(ours, weights.T)


@given(
    heads=st.integers(1, 5), kinds=st.integers(1, 4), size=st.integers(1, 4), columns=st.integers(1, 3),
    transpose=st.booleans(), count=st.sampled_from([1, 2]),
)  # fmt: skip
def test_any_fused_shape_comes_back(
    heads: int, kinds: int, size: int, columns: int, transpose: bool, count: int
) -> None:
    rule = WeightRule(
        tuple(f"our{number}" for number in range(count)), ("x",), transpose=transpose, interleave=(heads, kinds)
    )
    length = heads * kinds * size * count
    foreign = _matrix(length, columns) if transpose else _matrix(columns, length)
    (back,) = to_theirs(rule, to_ours(rule, [foreign]))
    assert np.array_equal(back, foreign)


def test_a_rule_that_cannot_cut_its_tensor_is_the_familys_fault() -> None:
    with pytest.raises(AssertionError, match="does not cut 12 into 2"):
        to_ours(WeightRule(("a", "b"), ("x",), sizes=(5, 5)), [np.zeros((2, 12))])
