from __future__ import annotations

import pytest

from llm_run.core.parallel.pipeline.actions import Action
from llm_run.core.parallel.pipeline.timeline import play

FIRST = tuple(Action(kind, 0, 0) for kind in ("forward", "send_activation", "receive_gradient", "backward"))
LAST = tuple(Action(kind, 1, 0) for kind in ("receive_activation", "forward", "backward", "send_gradient"))


def test_one_micro_batch_keeps_one_of_two_stages_busy_at_a_time() -> None:
    line = play((FIRST, LAST), [1.0, 1.0])
    assert line.length == 6.0  # forward 1, backward 2, on each
    assert line.busy == (3.0, 3.0)
    assert line.bubble == 0.5


def test_a_backward_pass_costs_two_forward_passes_of_its_section() -> None:
    assert play((FIRST, LAST), [1.0, 2.0]).length == 1 + 2 + 4 + 2


def test_a_sender_waits_until_the_receiver_has_time() -> None:
    other = Action("forward", 1, 1)
    late = play((FIRST, (other, *LAST)), [1.0, 5.0])
    assert late.length == 5 + 5 + 10 + 2


def test_stages_that_both_receive_first_are_found() -> None:
    swapped = (FIRST[0], FIRST[2], FIRST[1], FIRST[3])
    with pytest.raises(ValueError, match=r"stages wait for each other: stage 0 at .*receive_gradient.*, stage 1 at"):
        play((swapped, LAST), [1.0, 1.0])
