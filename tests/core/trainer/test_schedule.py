from __future__ import annotations

import math

import pytest
import torch
import transformers

from llm_run.core.config.training import TrainingOptions
from llm_run.core.trainer.schedule import Schedule

TOTAL, PEAK = 40, 3e-4


def options(**changes: object) -> TrainingOptions:
    return TrainingOptions(learning_rate=PEAK, **changes)


WARMED = ["linear", "cosine", "constant_with_warmup", "polynomial"]


@pytest.mark.parametrize(("kind", "warmup"), [("constant", 0), *((kind, k) for kind in WARMED for k in (0, 7))])
def test_rates_are_those_of_transformers(kind: str, warmup: int) -> None:
    extra = {"lr_end": 1e-5, "power": 2.0} if kind == "polynomial" else {}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = transformers.get_scheduler(kind, optimizer, warmup, TOTAL, scheduler_specific_kwargs=extra)
    ours = Schedule.from_options(options(lr_scheduler_type=kind, warmup_steps=warmup, **extra), TOTAL)
    for step in range(TOTAL + 1):
        assert ours.rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15), step
        optimizer.step()
        theirs.step()


def test_several_half_waves_of_the_cosine_are_those_of_transformers() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = transformers.get_cosine_schedule_with_warmup(optimizer, 5, TOTAL, num_cycles=1.5)
    ours = Schedule.from_options(options(lr_scheduler_type="cosine", warmup_steps=5, num_cycles=1.5), TOTAL)
    for step in range(TOTAL + 1):
        assert ours.rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_rates_are_those_of_the_seeds_pretraining_formula(kind: str) -> None:
    """step < warm-up: peak * step / warm-up; step > decay: minimum; else by the ratio in between."""
    low, warmup, decay = 3e-5, 4, 30
    ours = Schedule.from_options(
        options(lr_scheduler_type=kind, warmup_steps=warmup, decay_steps=decay, min_learning_rate=low), TOTAL
    )
    for step in range(TOTAL + 1):
        ratio = (step - warmup) / (decay - warmup)
        shape = 0.5 * (math.cos(math.pi * ratio) + 1.0) * (PEAK - low) + low
        between = PEAK - (PEAK - low) * ratio if kind == "linear" else shape
        expected = PEAK * step / warmup if step < warmup else low if step > decay else between
        assert ours.rate(step) == pytest.approx(expected, rel=1e-9), step


def test_warmup_steps_win_over_warmup_ratio() -> None:
    ratio = Schedule.from_options(options(warmup_ratio=0.25), TOTAL)
    both = Schedule.from_options(options(warmup_ratio=0.25, warmup_steps=2), TOTAL)
    assert (ratio.warmup_steps, both.warmup_steps) == (10, 2)


def test_a_warm_up_that_is_longer_than_the_run_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Schedule.from_options(options(warmup_steps=TOTAL - 1), TOTAL)
    assert caplog.messages == []
    Schedule.from_options(options(warmup_steps=TOTAL), TOTAL)
    assert caplog.messages == [
        "warm-up takes 40 steps of 40: the learning rate never reaches 0.0003. Lower --warmup_steps"
    ]
