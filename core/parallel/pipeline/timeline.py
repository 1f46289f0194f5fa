"""A schedule played through with sends that block, to find how long stages wait. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .actions import Action, Schedule, counterpart, duration


@dataclass(frozen=True, slots=True)
class Timeline:
    """How a schedule goes, in units of the costs that it was played with."""

    length: float
    """Until the last stage is done."""
    busy: tuple[float, ...]
    """Time in which each stage computes."""

    @property
    def bubble(self) -> float:
        """The share of all stages' time in which they wait."""
        return 1.0 - sum(self.busy) / (self.length * len(self.busy))


def play(schedule: Schedule, costs: Sequence[float]) -> Timeline:
    """Play a schedule through; a message goes when both sides have come to it, and takes no time.

    Args:
        schedule: the actions of each stage.
        costs: of one forward pass through each section.

    Returns:
        How long it takes.

    Raises:
        ValueError: stages wait for each other for ever, or a side of a message is missing.
    """
    now, at = [0.0] * len(schedule), [0] * len(schedule)
    busy = [0.0] * len(schedule)
    while any(place < len(actions) for place, actions in zip(at, schedule, strict=True)):
        before = sum(at)
        for stage, actions in enumerate(schedule):
            while at[stage] < len(actions) and duration(actions[at[stage]]):
                action = actions[at[stage]]
                time = costs[action.section] * duration(action)
                now[stage], busy[stage], at[stage] = now[stage] + time, busy[stage] + time, at[stage] + 1
            peer = _waiting_peer(schedule, at, stage)
            if peer is not None:
                now[stage] = now[peer] = max(now[stage], now[peer])
                at[stage], at[peer] = at[stage] + 1, at[peer] + 1
        if sum(at) == before:
            places = (f"stage {stage} at {_next(schedule, at, stage)}" for stage in range(len(schedule)))
            raise ValueError(f"stages wait for each other: {', '.join(places)}")
    return Timeline(max(now), tuple(busy))


def _waiting_peer(schedule: Schedule, at: Sequence[int], stage: int) -> int | None:
    """Return the stage that is at the other side of the message that ``stage`` is at."""
    action = _next(schedule, at, stage)
    if action is None or duration(action):
        return None
    other = counterpart(action)
    peer = other.section % len(schedule)
    return peer if _next(schedule, at, peer) == other else None


def _next(schedule: Schedule, at: Sequence[int], stage: int) -> Action | None:
    return schedule[stage][at[stage]] if at[stage] < len(schedule[stage]) else None
