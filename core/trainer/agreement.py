"""What the ranks of a training step tell each other, so that all of them do the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..ops import global_norm
from ..parallel.holding import square_sum
from ..parallel.plan import DATA, REPLICAS

if TYPE_CHECKING:
    from paddle import Tensor

    from ..parallel.mesh import Mesh
    from ..parallel.slices import Part


class Agreement:
    """Sums over ranks, each the same to the bit on every rank; with one process what that process has."""

    def __init__(self, mesh: Mesh, parts: Mapping[str, Part], owned: Mapping[str, tuple[bool, ...]]) -> None:
        """Remember what this rank holds.

        Args:
            mesh: of this run.
            parts: which part of each trained parameter this rank holds, by name.
            owned: of each part's slices, whether this rank answers for it.
        """
        self.mesh = mesh
        self.parts = parts
        self.owned = owned

    def add_up(self, values: Sequence[float]) -> list[float]:
        """Return each value's sum over all ranks that see different samples."""
        wire = self.mesh.group(*DATA).wire
        said = [values] if wire is None else wire.exchange_json(list(values), "a sum over the global batch")
        return [sum(column) for column in zip(*said, strict=True)]

    def loss_and_norm(self, share: float, gradients: Mapping[str, Tensor]) -> tuple[float, float]:
        """Return the loss of the global batch, and the 2-norm of its gradients; not finite where one is not.

        Args:
            share: this rank's part of the loss.
            gradients: of what this rank holds, summed over ranks.
        """
        if self.mesh.is_alone:
            return share, global_norm(list(gradients.values()))
        squares = square_sum(gradients, self.parts, self.owned)
        said = self.mesh.gather([share, squares], "the end of a backward pass")
        # Of rank 0's replicas on every rank: its peers in tensor parallelism and in a pipeline have the same loss.
        loss = sum(said[rank][0] for rank in self.mesh.plan.group_of(0, *REPLICAS))
        return loss, math.sqrt(sum(squares for _, squares in said))

    def first_said(self, text: str) -> str:
        """Return what the first rank that has something to say says; empty where none has."""
        return next(filter(None, self.mesh.gather(text, "the search for a fault")), "")

    @property
    def signature(self) -> str:
        """Say which rank this is, to be put behind what it says; empty where there is only one."""
        return "" if self.mesh.is_alone else f" on rank {self.mesh.rank}"
