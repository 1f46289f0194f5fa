"""Which block of a logical tensor a rank holds: what splitting, saving and loading have in common. No Paddle.

A logical tensor is what one process would hold, under the model's own name for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Slice:
    """A block of a tensor: from ``start`` up to, and without, ``stop`` on each dimension."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Slice:
        """Return all of a tensor."""
        return cls((0,) * len(shape), shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the block."""
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Values in the block."""
        return math.prod(self.shape)

    def index(self) -> tuple[slice, ...]:
        """Return what an array is indexed with to get the block."""
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))

    def common(self, other: Slice) -> Slice | None:
        """Return what two blocks of one tensor share; ``None`` where that is nothing."""
        start = tuple(max(pair) for pair in zip(self.start, other.start, strict=True))
        stop = tuple(min(pair) for pair in zip(self.stop, other.stop, strict=True))
        return Slice(start, stop) if all(a < b for a, b in zip(start, stop, strict=True)) else None

    def rows(self, first: int, end: int) -> Slice:
        """Return those rows of the block that lie between ``first`` and ``end``, counted from its own first row."""
        top, length = self.start[0], self.shape[0]
        low = min(max(first, 0), length)
        high = min(max(end, low), length)
        return Slice((top + low, *self.start[1:]), (top + high, *self.stop[1:]))

    def seen_from(self, origin: tuple[int, ...]) -> Slice:
        """Return the same block, counted from ``origin`` instead of from the tensor's own start."""
        start = tuple(a - b for a, b in zip(self.start, origin, strict=True))
        return Slice(start, tuple(a - b for a, b in zip(self.stop, origin, strict=True)))


@dataclass(frozen=True, slots=True)
class Part:
    """What a rank holds of one logical tensor: one tensor of its own, made of blocks side by side."""

    shape: tuple[int, ...]
    """Of the logical tensor."""
    slices: tuple[Slice, ...]
    """Its blocks, in the order in which they lie along ``dim`` of the rank's tensor."""
    dim: int = 0
    is_owner: bool = True
    """Whether this rank is the first of the tensor-parallel ranks that hold the same."""

    @classmethod
    def whole(cls, shape: tuple[int, ...], *, is_owner: bool = True) -> Part:
        """Return all of a tensor."""
        return cls(shape, (Slice.whole(shape),), is_owner=is_owner)

    @classmethod
    def along(
        cls, shape: tuple[int, ...], dim: int, spans: Sequence[tuple[int, int]], *, is_owner: bool = True
    ) -> Part:
        """Return the spans of one dimension, side by side, and all of the others."""
        dim %= len(shape)
        before, after = shape[:dim], shape[dim + 1 :]
        slices = (Slice((0,) * dim + (first,) + (0,) * len(after), (*before, last, *after)) for first, last in spans)
        return cls(shape, tuple(slices), dim, is_owner)

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Shape of the rank's own tensor."""
        shape = list(self.slices[0].shape)
        if shape:
            shape[self.dim] = sum(part.shape[self.dim] for part in self.slices)
        return tuple(shape)

    def blocks(self) -> Iterator[tuple[Slice, Slice]]:
        """Yield each block twice: where it lies in the rank's own tensor, and where in the logical one."""
        at = 0
        for there in self.slices:
            shift = tuple(at if dim == self.dim else 0 for dim in range(len(self.shape)))
            here = Slice.whole(there.shape).seen_from(tuple(-step for step in shift))
            yield here, there
            at += there.shape[self.dim] if there.shape else 0

    def rows(self, first: int, end: int) -> Part:
        """Return the part that rows ``first`` to ``end`` of the rank's own tensor are; dimension 0 counts rows."""
        found = [there.rows(first - here.start[0], end - here.start[0]) for here, there in self.blocks()]
        # Blocks that lie below each other may have none of the rows; those side by side all have the same.
        some = [block for block in found if block.size] if self.dim == 0 else found
        return replace(self, slices=tuple(some or found[:1]))
