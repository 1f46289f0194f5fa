"""Several records in one row."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW = 8192
"""Records among which ``best_fit`` looks for company; a row never holds records from farther apart."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Which records stand in which row."""

    members: np.ndarray
    """int64 [records]: their numbers, row after row."""
    starts: np.ndarray
    """int64 [rows + 1]."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> list[int]:
        """Return the records of one row."""
        return [int(record) for record in self.members[self.starts[row] : self.starts[row + 1]]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Rows:
        """Make them of lists of records."""
        members = np.fromiter((record for row in rows for record in row), dtype=np.int64)
        return cls(members, np.cumsum([0, *map(len, rows)], dtype=np.int64))

    @classmethod
    def of_one_each(cls, count: int) -> Rows:
        """Give each of ``count`` records a row of its own."""
        return cls(np.arange(count), np.arange(count + 1))


def pack_in_order(lengths: Sequence[int], most: int) -> Rows:
    """Group records greedily, in their order, into rows of at most ``most`` tokens.

    Args:
        lengths: of the records, in tokens, none above ``most``.
        most: longest row.

    Returns:
        Rows of neighbours; no record is split, and the last row may be short.
    """
    starts, filled = [0], 0
    for place, length in enumerate(lengths):
        if place > starts[-1] and filled + length > most:
            starts.append(place)
            filled = 0
        filled += length
    return Rows(np.arange(len(lengths)), np.array([*starts, len(lengths)] if lengths else [0], dtype=np.int64))


def pack_best_fit(lengths: Sequence[int], most: int, *, window: int = WINDOW) -> Rows:
    """Group records into rows of at most ``most`` tokens so that little of a row stays empty.

    Among ``window`` records at a time, the longest one first, each goes into the fullest row that still has room for
    it. The result depends on the lengths only.

    Args:
        lengths: of the records, in tokens, none above ``most``.
        most: longest row.
        window: records that are packed together.

    Returns:
        Rows in the order of their first records; no record is split.

    Source: best-fit decreasing; Johnson et al. 1974, doi:10.1137/0203025.
    """
    rows: list[list[int]] = []
    for first in range(0, len(lengths), window):
        rows += _pack_window(lengths, range(first, min(first + window, len(lengths))), most)
    return Rows.of(rows)


def _pack_window(lengths: Sequence[int], records: range, most: int) -> list[list[int]]:
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for record in sorted(records, key=lambda number: (-lengths[number], number)):
        at = bisect_left(rooms, (lengths[record], 0))
        if at == len(rooms):
            rows.append([])
            room, row = most, len(rows) - 1
        else:
            room, row = rooms.pop(at)
        rows[row].append(record)
        insort(rooms, (room - lengths[record], row))
    return sorted(sorted(row) for row in rows)


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
