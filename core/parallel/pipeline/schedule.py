"""What each pipeline stage does, one action after the other. Pure Python: imports no Paddle.

Stages work in the order of 1F1B, or of its interleaved form where they hold several sections: forward passes until the
pipeline is full, then a forward and a backward pass in turn, then the backward passes that are left.

A send may block until the other side receives (gloo's does), so the order of messages matters. All actions of all
stages are put on one time line, each message as one point of it; a stage's list is its share of that line. Whatever
the stages' speeds, the message that is first on the line among those still to come can then always go through.

Source: Narayanan et al. 2021, arXiv:2104.04473, sections 2.2 and 2.3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from .actions import Action, Schedule, counterpart, duration
from .timeline import play

if TYPE_CHECKING:
    from .cut import Cut

Span = tuple[int, int]
"""Start and end of a pass."""
DELAYS = (0, 1)
"""Times that a message may be late on the time line. Blocking sends hold up stages that are out of step with each
other: with two stages, two sections on each and 16 micro-batches, a delay of 1 lets them wait 6 % of the time, not 15.
"""


@lru_cache(maxsize=8)
def training_schedule(*, stages: int, virtual: int, micro_batches: int) -> Schedule:
    """Return the forward and backward passes of ``micro_batches``, and the messages between stages."""
    orders = [_one_forward_one_backward(stage, stages, virtual, micro_batches) for stage in range(stages)]
    schedules = [_with_messages(orders, stages * virtual, delay) for delay in DELAYS]
    return min(schedules, key=lambda schedule: play(schedule, [1.0] * (stages * virtual)).bubble)


def forward_schedule(*, stages: int, virtual: int, micro_batches: int) -> Schedule:
    """Return the forward passes alone, for evaluation."""
    orders = [_passes("forward", stage, stages, virtual, micro_batches) for stage in range(stages)]
    return _with_messages(orders, stages * virtual, delay=0)


def bubble_fraction(cut: Cut, micro_batches: int) -> float:
    """Return the share of the stages' time in a training step in which they wait for each other."""
    schedule = training_schedule(stages=cut.stages, virtual=cut.virtual, micro_batches=micro_batches)
    return play(schedule, [section.cost for section in cut.sections]).bubble


def _one_forward_one_backward(stage: int, stages: int, virtual: int, micro_batches: int) -> list[Action]:
    """Return the passes of one stage; the first ``ahead`` forward passes fill the pipeline."""
    # Interleaved, only whole groups are free of deadlock: a group is filled up, and what filled it is left out again.
    filled = micro_batches if virtual == 1 else -(-micro_batches // stages) * stages
    forward = _passes("forward", stage, stages, virtual, filled)
    backward = _passes("backward", stage, stages, virtual, filled)
    ahead = stages - stage - 1 if virtual == 1 else 2 * (stages - stage - 1) + (virtual - 1) * stages
    ahead = min(ahead, len(forward))
    order = forward[:ahead]
    for go, back in zip(forward[ahead:], backward, strict=False):
        order += [go, back]
    order += backward[len(forward) - ahead :]
    return [action for action in order if action.micro < micro_batches]


def _passes(
    kind: Literal["forward", "backward"], stage: int, stages: int, virtual: int, micro_batches: int
) -> list[Action]:
    """Return the passes of one kind: a group of micro-batches, one a stage, goes through all sections in turn."""
    sections = range(stage, stages * virtual, stages)
    found = []
    for first in range(0, micro_batches, stages):
        group = range(first, min(first + stages, micro_batches))
        found += [
            Action(kind, section, micro) for section in sections[:: 1 if kind == "forward" else -1] for micro in group
        ]
    return found


def _with_messages(orders: Sequence[Sequence[Action]], sections: int, delay: int) -> Schedule:
    """Put all passes on one time line, and each message at a time when both sides are free, if there is one."""
    starts = _start_times(orders, sections, delay)
    spans = [[(starts[action], starts[action] + duration(action)) for action in order] for order in orders]
    line: list[tuple[int, int, int, Action]] = []
    for action, start in starts.items():
        line.append((start, 1, len(line), action))
        message = _message_after(action, sections)
        if message is not None:
            sides = [spans[side.section % len(orders)] for side in (action, counterpart(message))]
            time = _meeting(sides, start + duration(action), starts[_reader(message)])
            line.append((time, 0, len(line), message))
    found: list[list[Action]] = [[] for _ in orders]
    for _, is_pass, _, action in sorted(line, key=lambda entry: entry[:3]):
        for side in (action,) if is_pass else (action, counterpart(action)):
            found[side.section % len(orders)].append(side)
    return tuple(tuple(actions) for actions in found)


def _meeting(sides: Sequence[Sequence[Span]], earliest: int, latest: int) -> int:
    """Return the first time at which neither side has a pass half done; without one, the earliest.

    Args:
        sides: the passes of sender and receiver, in order.
        earliest: when the message is there.
        latest: when it is needed.
    """
    times = sorted({time for spans in sides for time in _ends(spans, earliest, latest)})
    return next((time for time in times if not any(_is_busy(spans, time) for spans in sides)), earliest)


def _ends(spans: Sequence[Span], earliest: int, latest: int) -> Iterator[int]:
    """Yield the times from ``earliest`` to ``latest`` at which a pass ends."""
    for index in range(max(0, bisect_left(spans, (earliest, 0)) - 1), len(spans)):
        end = spans[index][1]
        if end > latest:
            return
        if end >= earliest:
            yield end


def _is_busy(spans: Sequence[Span], time: int) -> bool:
    """Whether a pass began before ``time`` and ends after it."""
    index = bisect_left(spans, (time, 0)) - 1
    return index >= 0 and spans[index][1] > time


def _start_times(orders: Sequence[Sequence[Action]], sections: int, delay: int) -> Mapping[Action, int]:
    """Return when each pass starts if all wait for nothing but their input, which is ``delay`` under way."""
    starts: dict[Action, int] = {}
    free, done = [0] * len(orders), [0] * len(orders)
    while sum(done) < sum(map(len, orders)):
        before = sum(done)
        for stage, order in enumerate(orders):
            while done[stage] < len(order):
                action = order[done[stage]]
                needed = _needed_by(action, sections)
                if needed is not None and needed not in starts:
                    break
                ready = 0
                if needed is not None:
                    ready = starts[needed] + duration(needed) + (delay if needed.section != action.section else 0)
                starts[action] = max(free[stage], ready)
                free[stage] = starts[action] + duration(action)
                done[stage] += 1
        assert sum(done) > before, "the passes wait for each other"
    return starts


def _needed_by(action: Action, sections: int) -> Action | None:
    """Return the pass, if any, that must end before ``action`` starts."""
    if action.kind == "forward":
        return Action("forward", action.section - 1, action.micro) if action.section > 0 else None
    if action.section == sections - 1:
        return Action("forward", action.section, action.micro)
    return Action("backward", action.section + 1, action.micro)


def _reader(message: Action) -> Action:
    """Return the pass that needs a message, named by its sender's action."""
    if message.kind == "send_activation":
        return Action("forward", message.section + 1, message.micro)
    return Action("backward", message.section - 1, message.micro)


def _message_after(action: Action, sections: int) -> Action | None:
    """Return what a pass gives to the section after or before it."""
    if action.kind == "forward":
        return Action("send_activation", action.section, action.micro) if action.section < sections - 1 else None
    return Action("send_gradient", action.section, action.micro) if action.section > 0 else None
