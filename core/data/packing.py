"""Several records in one row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence


def pack_in_order(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Group records greedily, in their order, into rows of at most ``most`` tokens.

    Args:
        lengths: of the records, in tokens, none above ``most``.
        most: longest row.

    Returns:
        The records [first, last) of each row; no record is split, and the last row may be short.
    """
    rows, first, filled = [], 0, 0
    for place, length in enumerate(lengths):
        if place > first and filled + length > most:
            rows.append((first, place))
            first, filled = place, 0
        filled += length
    return [*rows, (first, len(lengths))] if lengths else []


def join(samples: Sequence[Sample]) -> Sample:
    """Lay samples side by side, as segments 1, 2, … that do not see each other."""
    return Sample(
        ids=np.concatenate([sample.ids for sample in samples]),
        labels=np.concatenate([sample.labels for sample in samples]),
        segments=np.concatenate(
            [np.full(len(sample.ids), place, dtype=np.int32) for place, sample in enumerate(samples, 1)]
        ),
        prefix=np.concatenate([sample.prefix for sample in samples]),
    )
