from __future__ import annotations

import itertools
import random

import pytest

from llm_run.core.parallel.pipeline.actions import Action, Kind, Schedule
from llm_run.core.parallel.pipeline.cut import Cut, Section
from llm_run.core.parallel.pipeline.schedule import bubble_fraction, forward_schedule, training_schedule
from llm_run.core.parallel.pipeline.timeline import play

MATCHING: dict[str, tuple[Kind, int]] = {
    "send_activation": ("receive_activation", 1),
    "send_gradient": ("receive_gradient", -1),
}
"""What the other side of a message does, and how far its section is away."""
Shape = tuple[int, int, int]
"""Stages, sections on each, micro-batches."""
SHAPES: list[Shape] = list(itertools.product(range(2, 9), range(1, 5), range(1, 17)))


@pytest.fixture(scope="module")
def schedules() -> dict[Shape, Schedule]:
    """Every training schedule of 2 to 8 stages with 1 to 4 sections each, and 1 to 16 micro-batches."""
    return {(p, v, m): training_schedule(stages=p, virtual=v, micro_batches=m) for p, v, m in SHAPES}


def run_in_random_order(schedule: Schedule) -> int:
    """Do all actions as processes would whose sends block: a message goes once both sides are at it.

    The stages have their turns in random order, and do all that they can. Checks that nothing is used before it is
    there, and returns how many actions were done; fewer than there are mean a deadlock.
    """
    chance, known = random.Random(3), set()
    stages, at = list(range(len(schedule))), [0] * len(schedule)
    last = max(action.section for actions in schedule for action in actions)

    def do(stage: int, action: Action) -> None:
        assert needs(action, last) <= known, f"{action} comes too early"
        known.add((action.kind, action.section, action.micro))
        at[stage] += 1

    while True:
        before = sum(at)
        chance.shuffle(stages)
        for stage in stages:
            while at[stage] < len(schedule[stage]):
                action = schedule[stage][at[stage]]
                if action.kind in MATCHING:
                    kind, step = MATCHING[action.kind]
                    peer = (action.section + step) % len(schedule)
                    if schedule[peer][at[peer] : at[peer] + 1] != (Action(kind, action.section + step, action.micro),):
                        break
                    do(stage, action)
                    do(peer, schedule[peer][at[peer]])
                elif action.kind in ("forward", "backward"):
                    do(stage, action)
                else:
                    break
        if sum(at) == before:
            return before


def needs(action: Action, last: int) -> set[tuple[str, int, int]]:
    """What the same stage must have done before; ``last`` is the last section."""
    kinds = {
        "forward": ["receive_activation"] if action.section > 0 else [],
        "send_activation": ["forward"],
        "backward": ["forward", *(["receive_gradient"] if action.section < last else [])],
        "send_gradient": ["backward"],
    }
    return {(kind, action.section, action.micro) for kind in kinds.get(action.kind, [])}


def test_no_training_schedule_deadlocks_or_uses_what_is_not_there(schedules: dict[Shape, Schedule]) -> None:
    for shape, schedule in schedules.items():
        assert run_in_random_order(schedule) == sum(map(len, schedule)), shape


def test_every_stage_does_every_pass_and_every_message_once(schedules: dict[Shape, Schedule]) -> None:
    for (stages, virtual, micro_batches), schedule in schedules.items():
        for stage, actions in enumerate(schedule):
            expected = set()
            for section in range(stage, stages * virtual, stages):
                kinds: list[Kind] = ["forward", "backward"]
                kinds += ["receive_activation", "send_gradient"] if section > 0 else []
                kinds += ["send_activation", "receive_gradient"] if section < stages * virtual - 1 else []
                expected |= {Action(kind, section, micro) for kind in kinds for micro in range(micro_batches)}
            assert len(actions) == len(expected) and set(actions) == expected, (stages, virtual, micro_batches)


def test_gradients_of_a_section_are_added_in_the_order_of_micro_batches(schedules: dict[Shape, Schedule]) -> None:
    for (_, _, micro_batches), schedule in schedules.items():
        orders: dict[int, list[int]] = {}
        for action in itertools.chain(*schedule):
            if action.kind == "backward":
                orders.setdefault(action.section, []).append(action.micro)
        assert all(order == list(range(micro_batches)) for order in orders.values())


def test_plain_stages_keep_no_more_micro_batches_than_there_are_stages_from_them_on(
    schedules: dict[Shape, Schedule],
) -> None:
    for (stages, virtual, micro_batches), schedule in schedules.items():
        for stage, actions in enumerate(schedule if virtual == 1 else ()):
            kept = itertools.accumulate({"forward": 1, "backward": -1}.get(action.kind, 0) for action in actions)
            assert max(kept) == min(stages - stage, micro_batches)


def test_no_forward_schedule_deadlocks_or_goes_back() -> None:
    for stages, virtual, micro_batches in SHAPES[::3]:
        schedule = forward_schedule(stages=stages, virtual=virtual, micro_batches=micro_batches)
        assert run_in_random_order(schedule) == sum(map(len, schedule)), (stages, virtual, micro_batches)
        kinds = {action.kind for action in itertools.chain(*schedule)}
        assert kinds == {"forward", "send_activation", "receive_activation"}


@pytest.mark.parametrize(
    ("stages", "virtual", "micro_batches"), [(2, 1, 4), (4, 1, 8), (8, 1, 16), (4, 2, 8), (4, 4, 16)]
)
def test_the_bubble_is_that_of_the_paper(stages: int, virtual: int, micro_batches: int) -> None:
    # Narayanan et al. 2021: (p - 1) / (v m) of the time in which stages work, section 2.2.2.
    schedule = training_schedule(stages=stages, virtual=virtual, micro_batches=micro_batches)
    waiting, working = stages - 1, virtual * micro_batches
    assert play(schedule, [1.0] * (stages * virtual)).bubble == pytest.approx(waiting / (waiting + working))


def test_two_interleaved_stages_wait_no_longer_than_plain_ones_although_sends_block() -> None:
    plain = play(training_schedule(stages=2, virtual=1, micro_batches=16), [1.0] * 2).bubble
    assert play(training_schedule(stages=2, virtual=2, micro_batches=16), [0.5] * 4).bubble <= plain + 1e-9


def test_the_bubble_counts_how_unequal_sections_are() -> None:
    def cut(*costs: int) -> Cut:
        return Cut(tuple(Section(index, index, (), cost) for index, cost in enumerate(costs)), len(costs))

    assert bubble_fraction(cut(5, 5), 4) == pytest.approx(1 / 5)
    assert bubble_fraction(cut(5, 10), 4) > 1 / 3
