"""What can be said against the options of training before anything is imported or read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Problem

if TYPE_CHECKING:
    from ..config.training import TrainingOptions

AT_LEAST_ONE = (
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "logging_steps",
    "save_steps", "eval_steps", "max_skipped_steps", "save_total_limit", "early_stopping_patience",
)  # fmt: skip
PREFERENCE_FIGURES = ("loss", "rewards_chosen", "rewards_rejected", "rewards_accuracy", "rewards_margin")
"""What evaluation on pairs measures."""
SMOOTHED = ("sigmoid", "simpo")
"""Losses on pairs that label smoothing is defined for."""
NOT_NEGATIVE = (
    "seed", "learning_rate", "embedding_learning_rate", "head_learning_rate", "min_learning_rate", "warmup_steps",
    "warmup_ratio", "weight_decay", "max_grad_norm", "neftune_noise_alpha",
    "adam_beta1", "adam_beta2", "num_cycles", "lr_end",
)  # fmt: skip


def check_training(options: TrainingOptions) -> list[Problem]:
    """Return every problem of the training options; imports no Paddle."""
    return [
        *_check_numbers(options), *_check_schedule(options), *_check_precision(options), *_check_paths(options),
        *_check_best(options),
    ]  # fmt: skip


def _check_numbers(options: TrainingOptions) -> list[Problem]:
    problems = []
    for least, names in ((1, AT_LEAST_ONE), (0, NOT_NEGATIVE)):
        for name in names:
            value = getattr(options, name)
            if value is not None and not (value >= least and math.isfinite(value)):
                problems.append(Problem(f"--{name}", str(value), f"must be {least} or more"))
    for name in ("adam_beta1", "adam_beta2"):
        if getattr(options, name) >= 1.0:
            problems.append(Problem(f"--{name}", str(getattr(options, name)), "must be below 1"))
    if not options.adam_epsilon > 0.0:
        problems.append(Problem("--adam_epsilon", str(options.adam_epsilon), "must be above 0"))
    if options.max_steps == 0:
        remedy = "Leave it out to train for num_train_epochs, or use --do_train false --do_eval true to evaluate only."
        problems.append(Problem("--max_steps", "0", "makes no step", remedy))
    elif options.max_steps < 0 and not options.num_train_epochs > 0:
        problems.append(Problem("--num_train_epochs", str(options.num_train_epochs), "must be above 0"))
    return problems


def _check_schedule(options: TrainingOptions) -> list[Problem]:
    kind, peak = options.lr_scheduler_type, options.learning_rate
    problems = []
    if kind == "constant" and (options.warmup_steps > 0 or options.warmup_ratio > 0):
        remedy = "Use constant_with_warmup."
        problems.append(Problem("--lr_scheduler_type", kind, "has no warm-up, but one is asked for", remedy))
    if not peak >= 0.0:  # wrong by itself: no other rate can be held against it
        return problems
    if kind in ("linear", "cosine") and options.min_learning_rate > peak:
        problems.append(Problem("--min_learning_rate", str(options.min_learning_rate), f"is above the peak ({peak})"))
    if kind == "polynomial" and options.lr_end >= peak:
        problems.append(Problem("--lr_end", str(options.lr_end), f"is not below learning_rate ({peak})"))
    if options.warmup_ratio > 1:
        problems.append(Problem("--warmup_ratio", str(options.warmup_ratio), "must be 1 or less"))
    return problems


def _check_precision(options: TrainingOptions) -> list[Problem]:
    problems = []
    if options.bf16 and options.fp16:
        problems.append(Problem("--fp16", "true", "excludes bf16", "Choose one of them."))
    if not (options.scale_loss >= 1.0 and math.isfinite(options.scale_loss)):
        problems.append(Problem("--scale_loss", str(options.scale_loss), "must be 1 or more"))
    return problems


def _check_best(options: TrainingOptions) -> list[Problem]:
    """Which evaluation is the best can be said only where there are several."""
    problems = []
    patience = options.early_stopping_patience
    for asked, key, value in (
        (options.load_best_model_at_end, "--load_best_model_at_end", "true"),
        (patience is not None, "--early_stopping_patience", str(patience)),
    ):
        if asked and options.do_train and options.evaluation_strategy == "no":
            problems.append(Problem(key, value, "has no evaluations to compare", "Give --evaluation_strategy."))
    if options.load_best_model_at_end and options.do_train and options.save_strategy == "no":
        reason = "keeps the checkpoint of the best evaluation, and save_strategy is no"
        problems.append(Problem("--load_best_model_at_end", "true", reason, "Give --save_strategy."))
    return problems


def check_preference(options: TrainingOptions) -> list[Problem]:
    """Return every problem of the options of preference tuning; imports no Paddle."""
    problems = []
    if not (options.dpo_beta > 0 and math.isfinite(options.dpo_beta)):
        problems.append(Problem("--dpo_beta", str(options.dpo_beta), "must be above 0"))
    if not 0 <= options.dpo_label_smoothing < 0.5:
        reason = "must be 0 or more and below 0.5"
        problems.append(Problem("--dpo_label_smoothing", str(options.dpo_label_smoothing), reason))
    elif options.dpo_label_smoothing and options.dpo_loss not in SMOOTHED:
        reason = f"has no effect on {options.dpo_loss}"
        remedy = f"Leave it out, or use {' or '.join(SMOOTHED)}."
        problems.append(Problem("--dpo_label_smoothing", str(options.dpo_label_smoothing), reason, remedy))
    if not (options.simpo_gamma >= 0 and math.isfinite(options.simpo_gamma)):
        problems.append(Problem("--simpo_gamma", str(options.simpo_gamma), "must be 0 or more"))
    if options.metric_for_best_model.removeprefix("eval_") not in PREFERENCE_FIGURES:
        remedy = f"Measured are {', '.join(PREFERENCE_FIGURES)}."
        problems.append(Problem("--metric_for_best_model", options.metric_for_best_model, "is not measured", remedy))
    if not options.do_train:
        remedy = "Evaluate with --task evaluate."
        problems.append(Problem("--do_train", "false", "leaves a model that equals its own reference", remedy))
    return problems


def _check_paths(options: TrainingOptions) -> list[Problem]:
    problems = []
    if options.output_dir is None:
        problems.append(Problem("--output_dir", "", "is needed", "Name a folder for checkpoints, logs and the model."))
    if not options.do_train and not options.do_eval:
        problems.append(Problem("--do_train", "false", "leaves nothing to do", "Add --do_eval true."))
    if options.overwrite_output_dir and options.resume_from_checkpoint:
        problems.append(
            Problem("--overwrite_output_dir", "true", "excludes resume_from_checkpoint", "Choose one of them.")
        )
    elif options.resume_from_checkpoint:
        problems += _check_checkpoint(Path(options.resume_from_checkpoint))
    return problems


def _check_checkpoint(named: Path) -> list[Problem]:
    """Say where the checkpoints are, if the folder that was named is none; its content is verified later."""
    key, inner = "--resume_from_checkpoint", sorted(path.name for path in named.glob("checkpoint-*[0-9]"))
    if not named.is_dir():
        remedy = "Name a checkpoint-N folder, or leave it out to take the newest one in output_dir."
        return [Problem(key, str(named), "does not exist", remedy)]
    if inner and not (named / "MANIFEST.json").exists():
        return [Problem(key, str(named), "holds checkpoints and is none itself", f"Name one: {', '.join(inner)}.")]
    return []
