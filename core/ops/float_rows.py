"""Rows of float32 that a step of the C++ kernels reads, in memory that stays where it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class FloatRows:
    """A buffer of rows, filled anew for every step; it grows where a step has more of them than any before.

    A step of integers reads 100 MB, so that it leaves nothing of Python in the processor's caches. NumPy's ways to
    gather rows and to tell an address then take 40 us each, which is what a copy between memoryviews is for.
    """

    def __init__(self, width: int) -> None:
        """Begin with one row of so many numbers."""
        self._width = width
        self._make(1)

    def gather(self, table: memoryview[float], places: Sequence[int]) -> None:
        """Make row ``places[i]`` of a table the row i.

        Args:
            table: of rows as wide as these, side by side, as ``flat`` gives it.
            places: none beyond the table, which would raise a ``ValueError``.
        """
        if len(places) > len(self._rows):
            self._make(len(places))
        width, numbers = self._width, self._numbers
        for row, place in enumerate(places):
            numbers[row * width : (row + 1) * width] = table[place * width : (place + 1) * width]

    def put(self, values: np.ndarray) -> None:
        """Make the rows of an array [rows, width] the first ones."""
        if len(values) > len(self._rows):
            self._make(len(values))
        self._rows[: len(values)] = values

    def _make(self, count: int) -> None:
        self._rows = np.empty([count, self._width], dtype=np.float32)
        self._numbers = flat(self._rows)
        self.address: int = self._rows.ctypes.data
        """Of the first row, until a step has more rows than any before."""


def flat(rows: np.ndarray) -> memoryview[float]:
    """Return the numbers of an array, side by side; float32, and contiguous."""
    assert rows.dtype == np.float32 and rows.flags.c_contiguous
    # Cast twice: memory that ctypes gave names its byte order, and is then of another format than an array's.
    return rows.reshape(-1).data.cast("B").cast("f")
