"""A weight rule applied to arrays, in both directions; every step only moves elements, so bits stay as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..registry.facts import WeightRule

Shape = tuple[int, ...]


def to_ours(rule: WeightRule, foreign: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Turn the foreign tensors of a rule into our parameters, in the rule's order. Results may be views."""
    parts = [_transpose(part) if rule.transpose else part for part in foreign]
    if rule.permute_rotary:
        # (heads, D/2, 2) holds the pairs side by side; we keep the halves apart: (heads, 2, D/2).
        parts = [_swap_groups(part, rule.axis, (rule.permute_rotary[0], -1, 2), 1) for part in parts]
    whole = _join(parts, rule.axis)
    if rule.interleave:
        heads, kinds = rule.interleave
        whole = _swap_groups(whole, rule.axis, (heads, kinds, -1), 0)
    return _cut(whole, rule, len(rule.ours))


def to_theirs(rule: WeightRule, ours: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Turn our parameters into the foreign tensors of a rule: the inverse of ``to_ours``."""
    whole = _join(ours, rule.axis)
    if rule.interleave:
        heads, kinds = rule.interleave
        whole = _swap_groups(whole, rule.axis, (kinds, heads, -1), 0)
    parts = _cut(whole, rule, len(rule.theirs))
    if rule.permute_rotary:
        parts = [_swap_groups(part, rule.axis, (rule.permute_rotary[0], 2, -1), 1) for part in parts]
    return [_transpose(part) if rule.transpose else part for part in parts]


def foreign_shapes(rule: WeightRule, ours: Sequence[Shape]) -> list[Shape]:
    """Return the shapes that the foreign tensors of a rule must have, given those of our parameters."""
    first, axis = ours[0], rule.axis % len(ours[0])
    total = sum(shape[axis] for shape in ours)
    lengths = _lengths(rule, total, len(rule.theirs))
    shapes = [(*first[:axis], length, *first[axis + 1 :]) for length in lengths]
    return [shape[::-1] if rule.transpose and len(shape) == 2 else shape for shape in shapes]


def _transpose(array: np.ndarray) -> np.ndarray:
    """Swap the axes of a matrix; a rule may cover its bias as well, which has one axis."""
    return array.T if array.ndim == 2 else array


def _join(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _cut(whole: np.ndarray, rule: WeightRule, count: int) -> list[np.ndarray]:
    lengths = _lengths(rule, whole.shape[rule.axis], count)
    return np.split(whole, np.cumsum(lengths)[:-1], axis=rule.axis) if count > 1 else [whole]


def _lengths(rule: WeightRule, total: int, count: int) -> tuple[int, ...]:
    if count == 1:
        return (total,)
    lengths = rule.sizes or (total // count,) * count
    assert len(lengths) == count and sum(lengths) == total, f"{rule} does not cut {total} into {count}"
    return lengths


def _swap_groups(array: np.ndarray, axis: int, groups: tuple[int, ...], first: int) -> np.ndarray:
    """See ``axis`` as ``groups`` (one of them -1), and swap the groups ``first`` and ``first + 1``."""
    axis %= array.ndim
    rest = array.shape[axis] // -math.prod(groups)
    sizes = tuple(rest if size == -1 else size for size in groups)
    split = array.reshape(*array.shape[:axis], *sizes, *array.shape[axis + 1 :])
    return split.swapaxes(axis + first, axis + first + 1).reshape(array.shape)
