"""Where activations pass between what all tensor-parallel ranks share and what each has its own part of.

Between the entrance (before column-parallel matrices) and the exit (behind a row-parallel one) a rank has its own heads
or feed-forward units. Outside, all ranks have the same hidden states; in sequence parallelism each has its own tokens.

Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3; Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..differentiable import copy_then_reduce, gather_then_scatter, reduce_then_copy, scatter_then_gather

if TYPE_CHECKING:
    from paddle import Tensor

    from ..groups import Group
    from .stream import RankStream

SEQUENCE_DIM = 1


class Entrance:
    """The way in for the column-parallel matrices of one layer.

    Those that read the same tensor (q, k and v; gate and up) share one communication: it happens at the first of
    them, and the autograd sums their gradients before it sends them.
    """

    def __init__(self, group: Group, stream: RankStream | None, *, sequence_parallel: bool) -> None:
        """Connect the ranks of ``group``.

        Args:
            group: the tensor-parallel ranks.
            stream: entered here; ``None`` where that is done around the whole block, or nothing is dropped.
            sequence_parallel: outside, each rank has its own tokens.
        """
        self.num_readers = 0
        self._group, self._stream, self._sequence_parallel = group, stream, sequence_parallel
        self._seen: Tensor | None = None
        self._inside: Tensor | None = None
        self._waiting = 0

    def __call__(self, x_BSH: Tensor, *, training: bool) -> Tensor:
        """Return the hidden states of all tokens, for a rank's own heads or units to read."""
        if self._inside is None or x_BSH is not self._seen:
            self._seen, self._inside, self._waiting = x_BSH, self._enter(x_BSH, training), self.num_readers
        inside_BSH = self._inside
        self._waiting -= 1
        if self._waiting == 0:
            self._seen = self._inside = None  # keeps no activation longer than its readers need it
        return inside_BSH

    def _enter(self, x_BSH: Tensor, training: bool) -> Tensor:
        if self._stream is not None:
            self._stream.enter(training=training)
        if self._sequence_parallel:
            return gather_then_scatter(x_BSH, self._group, dim=SEQUENCE_DIM)
        return copy_then_reduce(x_BSH, self._group)


class Exit:
    """The way out behind a row-parallel matrix."""

    def __init__(self, group: Group, stream: RankStream | None, *, sequence_parallel: bool) -> None:
        """Connect the ranks of ``group``; see ``Entrance``."""
        self._group, self._stream, self._sequence_parallel = group, stream, sequence_parallel

    def __call__(self, part_BSH: Tensor) -> Tensor:
        """Return the sum of all ranks' ``part``, of all tokens or of this rank's."""
        if self._stream is not None:
            self._stream.leave()
        if self._sequence_parallel:
            return scatter_then_gather(part_BSH, self._group, dim=SEQUENCE_DIM)
        return reduce_then_copy(part_BSH, self._group)
