from __future__ import annotations

import logging
import math

import pytest

from llm_run.core.errors import TrainingError
from llm_run.core.trainer.guard import Guard
from llm_run.core.trainer.precision import GROWTH_INTERVAL, MAX_SCALE, LossScale
from llm_run.core.trainer.step import StepResult


def result(fault: str = "") -> StepResult:
    return StepResult(loss=math.nan if fault else 1.0, grad_norm=1.0, count=8, num_supervised=8, fault=fault)


SAMPLES = range(40, 44)


def test_a_skipped_step_is_logged_with_its_samples(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Guard(3, LossScale(), lambda: "")
    with caplog.at_level(logging.WARNING, "llm_run.trainer"):
        guard.check(11, result("the loss is nan"), SAMPLES)
    assert caplog.messages == ["step 11 (samples 40 to 43) is skipped: the loss is nan"]


def test_training_stops_after_so_many_in_a_row() -> None:
    guard = Guard(3, LossScale(), lambda: "The last checkpoint is out/checkpoint-8.")
    for fault in ("bad", "bad", "", "bad", "bad"):
        guard.check(9, result(fault), SAMPLES)
    with pytest.raises(TrainingError) as caught:
        guard.check(12, result("the loss is nan"), SAMPLES)
    text = str(caught.value)
    assert text.startswith("step 12 (samples 40 to 43) is skipped: the loss is nan. It is number 3 in a row")
    assert "The last checkpoint is out/checkpoint-8." in text


def test_an_overflow_lowers_the_loss_scale_and_is_no_bad_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scale = LossScale(4.0, dynamic=True)
    guard = Guard(2, scale, lambda: "")
    with caplog.at_level(logging.WARNING, "llm_run.trainer"):
        guard.check(1, result("gradients are not finite: w"), SAMPLES)
        guard.check(2, result("gradients are not finite: w"), SAMPLES)
    assert (scale.value, guard.in_row) == (1.0, 0)
    assert caplog.messages[0].endswith("The loss scale is lowered to 2")
    guard.check(3, result("gradients are not finite: w"), SAMPLES)
    assert guard.in_row == 1


def test_a_loss_scale_grows_after_enough_good_steps_and_has_an_end() -> None:
    scale = LossScale(1024.0, dynamic=True)
    for _ in range(GROWTH_INTERVAL - 1):
        scale.succeeded()
    assert scale.value == 1024.0
    scale.succeeded()
    assert (scale.value, scale.good_steps) == (2048.0, 0)
    scale.good_steps = 17
    assert scale.overflowed()
    assert (scale.value, scale.good_steps) == (1024.0, 0)
    top = LossScale(MAX_SCALE, dynamic=True, good_steps=GROWTH_INTERVAL - 1)
    top.succeeded()
    assert top.value == MAX_SCALE


def test_a_fixed_scale_never_moves() -> None:
    scale = LossScale()
    for _ in range(GROWTH_INTERVAL + 1):
        scale.succeeded()
    assert not scale.overflowed()
    assert scale.value == 1.0
