"""Splitting and merging of arrays by their parts; every step only moves elements, so bits stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..slices import Part


def cut(whole: np.ndarray, part: Part) -> np.ndarray:
    """Return a rank's own tensor, given the logical one; a view where it is one block."""
    blocks = [whole[there.index()] for there in part.slices]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=part.dim)


def put(local: np.ndarray, whole: np.ndarray, part: Part) -> None:
    """Write a rank's own tensor to its places in the logical one: the inverse of ``cut``.

    ``local`` may be longer than the part along the dimension that is split; the rest is not looked at.
    """
    for here, there in part.blocks():
        whole[there.index()] = local[here.index()]
