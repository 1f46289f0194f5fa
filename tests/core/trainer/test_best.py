"""The best evaluation: which one it is, what becomes of its checkpoint, and when training stops for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_run.core.config.training import TrainingOptions
from llm_run.core.errors import RefusedError
from llm_run.core.trainer.best import BestModel
from llm_run.core.trainer.checks import check_training
from llm_run.core.trainer.metrics import read_metrics
from llm_run.core.trainer.snapshot import TrainerState


def after(values: list[float], **options: Any) -> TrainerState:
    """The state after evaluations with these losses, one a step."""
    best, state = BestModel(TrainingOptions(**options)), TrainerState()
    for step, value in enumerate(values, start=1):
        name = best.metric
        state = best.after(TrainerState(**{**_fields(state), "step": step}), {name: value})
    return state


def _fields(state: TrainerState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in TrainerState.__dataclass_fields__}


@pytest.mark.parametrize(
    ("options", "best_step"),
    [
        ({}, 3),
        ({"metric_for_best_model": "eval_ppl"}, 3),
        ({"metric_for_best_model": "accuracy"}, 2),
        ({"metric_for_best_model": "accuracy", "greater_is_better": False}, 3),
        ({"metric_for_best_model": "rougel"}, 2),
    ],
)
def test_the_name_of_the_figure_says_which_is_the_best(options: dict[str, Any], best_step: int) -> None:
    state = after([0.5, 0.9, 0.1, 0.1, math.nan], **options)
    assert (state.best_step, state.evaluated_step, state.evaluations_since_best) == (best_step, 5, 5 - best_step)


def test_patience_counts_evaluations_in_a_row() -> None:
    best = BestModel(TrainingOptions(early_stopping_patience=2))
    assert not best.is_exhausted(after([3.0, 4.0, 2.0, 2.5]))
    assert best.is_exhausted(after([3.0, 4.0, 2.0, 2.5, 2.0]))
    assert not BestModel(TrainingOptions()).is_exhausted(after([1.0] * 9))


def test_a_figure_that_is_not_measured_is_refused_by_name() -> None:
    best = BestModel(TrainingOptions(metric_for_best_model="bleu4"))
    with pytest.raises(RefusedError, match=r"--metric_for_best_model: bleu4 is not measured\. Measured are loss, ppl"):
        best.after(TrainerState(step=1), {"eval_loss": 1.0, "eval_ppl": 2.0})


@pytest.mark.parametrize("key", ["load_best_model_at_end", "early_stopping_patience"])
def test_what_needs_evaluations_says_so(key: str, tmp_path: Path) -> None:
    value = True if key.startswith("load") else 3
    options = TrainingOptions(output_dir=str(tmp_path), **{key: value})
    assert [problem.key for problem in check_training(options)] == [f"--{key}"]
    assert not check_training(TrainingOptions(output_dir="x", evaluation_strategy="steps", **{key: value}))


OVERFIT = {
    "max_steps": 40, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "evaluation_strategy": "steps",
    "eval_steps": 4, "save_steps": 100,
}  # fmt: skip
"""A few rows learnt by heart: other rows get worse again."""


def evaluations(out: Path) -> dict[int, float]:
    return {row["step"]: row["eval_loss"] for row in read_metrics(out) if "eval_loss" in row}


def test_the_best_model_is_written_and_its_checkpoint_is_kept(
    make_job: Any, run_job: Any, rows: Any, tmp_path: Path
) -> None:
    train, dev = rows(epoch_size=4), rows(epoch_size=8, seed=5)
    run_job(make_job(tmp_path / "a", train, dev, load_best_model_at_end=True, save_total_limit=1, **OVERFIT))
    found = evaluations(tmp_path / "a")
    best = min(found, key=lambda step: found[step])
    assert best < 40 and found[best] < found[40]
    names = {path.name for path in (tmp_path / "a").glob("checkpoint-*")}
    assert names == {f"checkpoint-{best}", "checkpoint-40"}
    # The same steps without looking for the best end at the best step with the same weights.
    run_job(make_job(tmp_path / "b", train, **{**OVERFIT, "max_steps": best, "evaluation_strategy": "no"}))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_training_stops_when_evaluations_get_no_better_and_a_second_call_trains_no_further(
    make_job: Any, run_job: Any, rows: Any, tmp_path: Path
) -> None:
    def start() -> None:
        options = {**OVERFIT, "early_stopping_patience": 2, "load_best_model_at_end": True}
        run_job(make_job(tmp_path / "a", rows(epoch_size=4), rows(epoch_size=8, seed=5), **options))

    start()
    found = evaluations(tmp_path / "a")
    best = min(found, key=lambda step: found[step])
    last = max(row["step"] for row in read_metrics(tmp_path / "a"))
    assert last == best + 8 < 40
    state = json.loads((tmp_path / "a" / f"checkpoint-{last}" / "trainer.json").read_text())["state"]
    assert (state["best_step"], state["evaluated_step"], state["evaluations_since_best"]) == (best, last, 2)
    weights = (tmp_path / "a" / "model.safetensors").read_bytes()
    start()
    assert max(row["step"] for row in read_metrics(tmp_path / "a")) == last
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == weights


def test_a_run_that_is_resumed_knows_its_best(make_job: Any, run_job: Any, rows: Any, tmp_path: Path) -> None:
    train, dev = rows(epoch_size=4), rows(epoch_size=8, seed=5)
    options = {**OVERFIT, "load_best_model_at_end": True}
    run_job(make_job(tmp_path / "whole", train, dev, **options))
    run_job(make_job(tmp_path / "parts", train, dev, **{**options, "max_steps": 28}))
    run_job(make_job(tmp_path / "parts", train, dev, **options))
    assert evaluations(tmp_path / "parts") == evaluations(tmp_path / "whole")
    assert (tmp_path / "parts/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
