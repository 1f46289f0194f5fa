from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.config.training import TrainingOptions
from llm_run.core.trainer.checks import check_preference, check_training


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"save_steps": 0}, "--save_steps: 0 must be 1 or more."),
        ({"save_total_limit": 0}, "--save_total_limit: 0 must be 1 or more."),
        ({"learning_rate": math.nan}, "--learning_rate: nan must be 0 or more."),
        ({"learning_rate": -1.0}, "--learning_rate: -1.0 must be 0 or more."),
        (
            {"max_steps": 0},
            "--max_steps: 0 makes no step. Leave it out to train for num_train_epochs, or use --do_train false "
            "--do_eval true to evaluate only.",
        ),
        ({"seed": -1}, "--seed: -1 must be 0 or more."),
        ({"adam_beta2": 1.0}, "--adam_beta2: 1.0 must be below 1."),
        ({"adam_epsilon": 0.0}, "--adam_epsilon: 0.0 must be above 0."),
        ({"num_train_epochs": 0.0}, "--num_train_epochs: 0.0 must be above 0."),
        (
            {"lr_scheduler_type": "constant", "warmup_steps": 3},
            "--lr_scheduler_type: constant has no warm-up, but one is asked for. Use constant_with_warmup.",
        ),
        ({"min_learning_rate": 1e-3}, "--min_learning_rate: 0.001 is above the peak (5e-05)."),
        (
            {"lr_scheduler_type": "polynomial", "lr_end": 1e-3},
            "--lr_end: 0.001 is not below learning_rate (5e-05).",
        ),
        ({"warmup_ratio": 1.5}, "--warmup_ratio: 1.5 must be 1 or less."),
        ({"bf16": True, "fp16": True}, "--fp16: true excludes bf16. Choose one of them."),
        ({"scale_loss": 0.5}, "--scale_loss: 0.5 must be 1 or more."),
        ({"output_dir": None}, "--output_dir: is needed. Name a folder for checkpoints, logs and the model."),
        ({"do_train": False}, "--do_train: false leaves nothing to do. Add --do_eval true."),
        (
            {"overwrite_output_dir": True, "resume_from_checkpoint": "x"},
            "--overwrite_output_dir: true excludes resume_from_checkpoint. Choose one of them.",
        ),
    ],
)
def test_each_bad_value_has_its_line(options: dict[str, object], text: str) -> None:
    assert [str(problem) for problem in check_training(TrainingOptions(**({"output_dir": "out"} | options)))] == [text]


def test_the_defaults_have_no_problem_and_all_are_reported_at_once() -> None:
    assert check_training(TrainingOptions(output_dir="out")) == []
    assert len(check_training(TrainingOptions(save_steps=0, seed=-1, bf16=True, fp16=True))) == 4


def test_a_folder_that_is_no_checkpoint_is_told_from_one_that_holds_some(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    said = [str(problem) for name in (".", "checkpoint-2", "checkpoint-9") for problem in check_training(
        TrainingOptions(output_dir="out", resume_from_checkpoint=str(tmp_path / name))
    )]  # fmt: skip
    assert said == [
        f"--resume_from_checkpoint: {tmp_path} holds checkpoints and is none itself. Name one: checkpoint-2.",
        f"--resume_from_checkpoint: {tmp_path}/checkpoint-9 does not exist. Name a checkpoint-N folder, or leave it "
        "out to take the newest one in output_dir.",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dpo_beta": 0.0}, "--dpo_beta: 0.0 must be above 0"),
        ({"dpo_label_smoothing": 0.5}, "--dpo_label_smoothing: 0.5 must be 0 or more and below 0.5"),
        (
            {"dpo_label_smoothing": 0.1, "dpo_loss": "ipo"},
            "--dpo_label_smoothing: 0.1 has no effect on ipo. Leave it out, or use sigmoid or simpo",
        ),
        ({"simpo_gamma": -1.0}, "--simpo_gamma: -1.0 must be 0 or more"),
        ({"metric_for_best_model": "accuracy"}, "--metric_for_best_model: accuracy is not measured. Measured are loss"),
        ({"do_train": False}, "--do_train: false leaves a model that equals its own reference"),
    ],
)
def test_wrong_options_of_preference_tuning_are_told(options: dict[str, Any], said: str) -> None:
    (problem,) = check_preference(TrainingOptions(**options))
    assert str(problem).startswith(said)


def test_the_defaults_of_preference_tuning_are_in_order() -> None:
    assert check_preference(TrainingOptions()) == []
