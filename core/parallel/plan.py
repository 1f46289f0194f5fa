"""How many ranks each parallel axis has, and which rank stands where. Pure arithmetic: imports no Paddle.

A rank is a point of a grid with the axes dp, pp, sharding, sep and mp. Ranks are numbered along the grid in the
plan's order, the last axis fastest, so that tensor-parallel ranks (mp), which talk most, are neighbours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Axis = Literal["dp", "pp", "sharding", "sep", "mp"]
AXES: tuple[Axis, ...] = ("dp", "pp", "sharding", "sep", "mp")
ORDERS: Mapping[str, tuple[Axis, ...]] = {"pp_first": AXES, "sharding_first": ("dp", "sharding", "pp", "sep", "mp")}
"""Axes from the slowest to the fastest, by the seed's name of the order."""
DATA: tuple[Axis, ...] = ("dp", "sharding")
"""Axes whose ranks see different samples."""
REPLICAS: tuple[Axis, ...] = ("dp", "sharding", "sep")
"""Axes whose ranks compute gradients of the same parameters from different tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelPlan:
    """The degrees of a run."""

    dp: int = 1
    """Copies of everything, each with samples of its own."""
    pp: int = 1
    """Stages that the layers are cut into."""
    sharding: int = 1
    """Ranks that share optimizer state, each with samples of its own."""
    sep: int = 1
    """Ranks that share each sequence."""
    mp: int = 1
    """Ranks that share each matrix."""
    sharding_stage: int = 0
    """What is sharded: 1 the optimizer, 2 gradients too, 3 parameters too; 0 where ``sharding`` is 1."""
    virtual_pp: int = 1
    """Pieces of the model that each stage holds, interleaved."""
    sequence_parallel: bool = False
    """Activations between matrices are split along the sequence over the ranks of ``mp``."""
    order: str = "pp_first"
    """A key of ``ORDERS``."""

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return math.prod(self.degree(axis) for axis in AXES)

    @property
    def data_world(self) -> int:
        """Ranks that see different samples: dp x sharding."""
        return self.dp * self.sharding

    def degree(self, axis: Axis) -> int:
        """Return the ranks along one axis."""
        degree: int = getattr(self, axis)
        return degree

    def coordinates(self, rank: int) -> dict[Axis, int]:
        """Return where ``rank`` stands on each axis.

        Raises:
            ValueError: there is no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank {rank} is not one of {self.world_size}")
        found: dict[Axis, int] = {}
        for axis in reversed(ORDERS[self.order]):
            rank, found[axis] = divmod(rank, self.degree(axis))
        return {axis: found[axis] for axis in AXES}

    def rank_at(self, coordinates: Mapping[Axis, int]) -> int:
        """Return the rank that stands at ``coordinates``; an axis that is left out counts as 0."""
        rank = 0
        for axis in ORDERS[self.order]:
            rank = rank * self.degree(axis) + coordinates.get(axis, 0)
        return rank

    def groups(self, *axes: Axis) -> tuple[tuple[int, ...], ...]:
        """Return the groups of ranks that differ along ``axes`` and nowhere else, in the order of their first ranks.

        Within a group, ranks are in ascending order, which for ``DATA`` is that of ``data_rank``.
        """
        others = [axis for axis in AXES if axis not in axes]
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world_size):
            place = self.coordinates(rank)
            found.setdefault(tuple(place[axis] for axis in others), []).append(rank)
        return tuple(sorted(tuple(ranks) for ranks in found.values()))

    def group_of(self, rank: int, *axes: Axis) -> tuple[int, ...]:
        """Return the ranks that differ from ``rank`` along ``axes`` and nowhere else, ``rank`` included."""
        place = self.coordinates(rank)
        spans = (range(self.degree(axis)) for axis in axes)
        return tuple(sorted(self.rank_at(place | dict(zip(axes, at, strict=True))) for at in itertools.product(*spans)))

    def data_rank(self, rank: int) -> int:
        """Return which of the ``data_world`` slices of a global batch ``rank`` sees, as the seed numbers them."""
        place = self.coordinates(rank)
        return self.sharding * place["dp"] + place["sharding"]


def padded_vocabulary(vocab_size: int, degree: int) -> int:
    """Return the rows of an embedding that is split over ``degree`` ranks: the next multiple of ``degree``."""
    return -(-vocab_size // degree) * degree
