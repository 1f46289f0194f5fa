"""What a pipeline stage can do. Imports no Paddle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "forward", "backward", "send_activation", "receive_activation", "send_gradient", "receive_gradient"
]  # fmt: skip
BACKWARD_COST = 2
"""Of a backward pass, in forward passes: the gradients of inputs and of weights."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a stage does."""

    kind: Kind
    section: int
    """The section, on this stage, that is computed, sends or receives."""
    micro: int
    """Number of the micro-batch."""


Schedule = tuple[tuple[Action, ...], ...]
"""The actions of each stage, in order."""


def duration(action: Action) -> int:
    """Return how long an action takes, in forward passes; messages take no time."""
    return {"forward": 1, "backward": BACKWARD_COST}.get(action.kind, 0)


def counterpart(action: Action) -> Action:
    """Return what the other side does at the same time as a message's ``action``."""
    if action.kind == "send_activation":
        return Action("receive_activation", action.section + 1, action.micro)
    if action.kind == "receive_activation":
        return Action("send_activation", action.section - 1, action.micro)
    if action.kind == "send_gradient":
        return Action("receive_gradient", action.section - 1, action.micro)
    assert action.kind == "receive_gradient"
    return Action("send_gradient", action.section + 1, action.micro)
