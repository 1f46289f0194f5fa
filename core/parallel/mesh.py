"""Where this process stands among all ranks, and the groups through which it talks to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .groups import Group, alone
from .plan import AXES, DATA, REPLICAS, Axis, ParallelPlan

if TYPE_CHECKING:
    from .exchange import Edge

SETS: tuple[tuple[Axis, ...], ...] = (*((axis,) for axis in AXES), DATA, REPLICAS)
"""Axes that get a group for each combination of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """One rank's view of the plan. With one process nothing in it communicates."""

    plan: ParallelPlan = field(default_factory=ParallelPlan)
    rank: int = 0
    world: Group = field(default_factory=lambda: alone("all ranks"))
    groups: dict[tuple[Axis, ...], Group] = field(default_factory=dict)
    """By axes, as in ``SETS``; see ``group``."""
    ends: Group = field(default_factory=lambda: alone("first and last stage"))
    """First and last stage, which share tied embeddings; alone on the stages between."""
    previous_stage: Edge | None = None
    """Whence activations come; on the first stage that is the last one, where stages hold several pieces."""
    next_stage: Edge | None = None
    """Whither activations go; on the last stage that is the first one, where stages hold several pieces."""

    def group(self, *axes: Axis) -> Group:
        """Return the ranks that differ from this one along ``axes``: one axis, ``*DATA`` or ``*REPLICAS``."""
        return self.groups.get(axes) or alone(" x ".join(axes), self.rank)

    def index(self, axis: Axis) -> int:
        """Return this rank's place on an axis."""
        return self.plan.coordinates(self.rank)[axis]

    @property
    def is_alone(self) -> bool:
        """Whether this is the only process."""
        return self.world.is_alone

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which speaks for all."""
        return self.rank == 0

    @property
    def is_first_stage(self) -> bool:
        """Whether this rank holds the embedding."""
        return self.index("pp") == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank holds the head and computes the loss."""
        return self.index("pp") == self.plan.pp - 1

    @property
    def data_rank(self) -> int:
        """Which slice of a global batch this rank sees."""
        return self.plan.data_rank(self.rank)

    @property
    def data_world(self) -> int:
        """Into how many slices a global batch is cut."""
        return self.plan.data_world

    def agree_max(self, value: int, what: str = "an agreement") -> int:
        """Return the largest ``value`` of all ranks: a signal that one has seen, the exit status that all take.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        return value if self.world.wire is None else max(self.world.wire.exchange_json(value, what))

    def gather(self, value: Any, what: str) -> list[Any]:
        """Return every rank's ``value`` (numbers, texts, lists, dicts) in the order of ranks, on all ranks.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        return [value] if self.world.wire is None else self.world.wire.exchange_json(value, what)

    def share(self, value: Any, what: str) -> Any:
        """Return rank 0's ``value`` (numbers, texts, lists, dicts); what the others give is not looked at.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        return value if self.is_alone else self.gather(value if self.is_main else None, what)[0]

    def meet(self, what: str) -> None:
        """Wait until all ranks are at ``what``.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        if self.world.wire is not None:
            self.world.wire.meet(what)
