"""The ranks that quantize one model together: what each of them does, and how it becomes one again.

Batches are dealt out one by one, the rows of a matrix in even pieces, and finished blocks one by one. A rank goes
through whole blocks with its own batches; what it notes of them is put into the order of the batches, so that all
ranks go on with the same numbers, and with those of one process.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import paddle

from ..parallel.collectives import all_gather_parts, all_reduce_in_place, broadcast
from ..parallel.groups import Group, alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paddle import Tensor

Item = TypeVar("Item")
Header = list[Any]
"""Dtype and shape of an array."""
PLACE = "an exchange of what calibration has found"
ROWS = 16
"""Pieces of a matrix begin at multiples of this, as far as there are rows: products of a piece then go through the same
kernels as those of the whole."""


class Ranks:
    """One rank's view of those that quantize a model together; one process is a group of its own."""

    def __init__(self, group: Group) -> None:
        """Join a group; all its ranks must call the same methods in the same order."""
        self._group = group

    @property
    def is_alone(self) -> bool:
        """Whether this is the only process."""
        return self._group.is_alone

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the result."""
        return self.index == 0

    @property
    def index(self) -> int:
        """Place of this rank."""
        return self._group.index

    @property
    def size(self) -> int:
        """How many there are."""
        return self._group.size

    def dealt(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this rank's share. Of the first few items each rank has some as well."""
        return items[self.index :: self.size]

    def keeper(self, block: int) -> int:
        """Return which rank keeps a block that is finished."""
        return block % self.size

    def in_order(self, own: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what was noted of all items, one array each, in their order.

        Args:
            own: of this rank's share of the first items, or of all.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        shares = self.gather(own)
        longest = max(map(len, shares))
        return [share[turn] for turn in range(longest) for share in shares if turn < len(share)]

    def by_rows(self, num_rows: int, work: Callable[[slice], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Let each rank work on some rows, and return the arrays of all rows.

        Args:
            num_rows: in all.
            work: returns arrays, each with one entry for each of the rows on its first axis.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        each = -(-num_rows // self.size)
        each = -(-each // ROWS) * ROWS if num_rows > ROWS * self.size else each
        rows = slice(min(self.index * each, num_rows), min((self.index + 1) * each, num_rows))
        return [np.concatenate(pieces) for pieces in zip(*self.gather(work(rows)), strict=True)]

    def total(self, x: Tensor | None, shape: Sequence[int]) -> Tensor:
        """Return the sum of all ranks' ``x``, which is used up; ``None`` is a float64 of zeros.

        Raises:
            DistributedError: a rank has gone, is late, or came with another shape.
        """
        summed = paddle.zeros(list(shape), dtype="float64") if x is None else x
        all_reduce_in_place(summed, self._group)
        return summed

    def say(self, value: Any) -> list[Any]:
        """Return all ranks' plain values (numbers, texts, lists), in their order.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        wire = self._group.wire
        return [value] if wire is None else wire.exchange_json(value, PLACE)

    def gather(self, own: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Return all ranks' arrays, of any number, shape and dtype, in their order.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        if self.is_alone:
            return [list(own)]
        headers: list[list[Header]] = self.say(_headers(own))
        longest = max(map(_size, headers))
        if not longest:
            return [_parted(b"", each) for each in headers]
        parts = all_gather_parts(_joined(own, longest), self._group)
        return [_parted(part.numpy(), each) for part, each in zip(parts, headers, strict=True)]

    def fetch(self, own: Sequence[np.ndarray], source: int) -> list[np.ndarray]:
        """Return the arrays that rank ``source`` gives; what the others give is not looked at.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        headers = self.say(_headers(own))[source]
        size = _size(headers)
        flat = _joined(own, size) if self.index == source else paddle.empty([size], dtype="uint8")
        return _parted(broadcast(flat, self._group, source=source).numpy(), headers)


ALONE = Ranks(alone("calibration"))
"""One process."""


def _headers(arrays: Sequence[np.ndarray]) -> list[Header]:
    return [[array.dtype.str, list(array.shape)] for array in arrays]


def _size(headers: Sequence[Header]) -> int:
    """Return the bytes of arrays."""
    return sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in headers)


def _joined(arrays: Sequence[np.ndarray], size: int) -> Tensor:
    """Return the bytes of arrays, one behind the other, filled up with zeros."""
    flat, at = np.zeros(size, dtype=np.uint8), 0
    for array in arrays:
        flat[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        at += array.nbytes
    return paddle.to_tensor(flat)


def _parted(flat: np.ndarray | bytes, headers: Sequence[Header]) -> list[np.ndarray]:
    arrays, at = [], 0
    for kind, shape in headers:
        count = math.prod(shape)
        array = np.frombuffer(flat, dtype=kind, count=count, offset=at) if count else np.empty(0, dtype=kind)
        arrays.append(array.reshape(shape).copy())
        at += array.nbytes
    return arrays
