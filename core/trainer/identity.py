"""Which training a checkpoint belongs to: what must be the same for a run to go on from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters.training import adapter_identity
from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.training import TrainingOptions
    from ..run import Run

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pdparams", ".gguf")

FIXED = frozenset({
    "seed", "learning_rate", "embedding_learning_rate", "head_learning_rate", "min_learning_rate", "lr_scheduler_type",
    "warmup_steps", "warmup_ratio", "decay_steps",
    "num_cycles", "lr_end", "power", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "bf16", "fp16", "neftune", "neftune_noise_alpha", "dpo_loss", "dpo_beta", "dpo_label_smoothing", "simpo_gamma",
})  # fmt: skip
"""Options that change what is learnt: another value is another run."""

COMBINED = frozenset({"per_device_train_batch_size", "gradient_accumulation_steps"})
"""Only their product, times the ranks, is compared: how a global batch is cut does not change the training."""

FREE = frozenset({
    "output_dir", "overwrite_output_dir", "do_train", "do_eval", "per_device_eval_batch_size", "num_train_epochs",
    "max_steps", "max_skipped_steps", "scale_loss", "recompute", "recompute_granularity", "evaluation_strategy",
    "eval_steps", "max_evaluate_steps", "logging_steps", "logging_first_step", "save_strategy", "save_steps",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_patience",
    "save_total_limit", "save_rehearsal", "resume_from_checkpoint", "disable_tqdm", "report_to",
})  # fmt: skip
"""Options that may have another value when a run goes on. A new ``max_steps`` moves the end of the learning rate's
decay, from the step at which the run goes on."""


def identity(run: Run, *, data: str, weights: str, data_world: int = 1) -> dict[str, Any]:
    """Return what is stored in every checkpoint and compared on resuming.

    Args:
        run: the request.
        data: fingerprint of the training data in their order.
        weights: fingerprint of the weights that training started from.
        data_world: ranks that see different samples.
    """
    options = run.config.training
    ours = {
        "task": run.config.task,
        "family": run.config.family,
        "data": data,
        "initial_weights": weights,
        "global_batch_size": global_batch_size(options, data_world),
        **{f.name: getattr(options, f.name) for f in fields(options) if f.name in FIXED},
        **adapter_identity(run),
        **{f"model.{key}": value for key, value in run.model_config.to_fields().items()},
    }
    # As a checkpoint gives it back: a tuple becomes a list.
    stored: dict[str, Any] = json.loads(json.dumps(ours))
    return stored


def fingerprint_weights(path: Path) -> str:
    """Return a hash of a model directory's or file's weights that does not depend on where it lies.

    Of each weight file, name, size and 64 KiB at either end: two models of one shape differ there, and 100 GB need
    not be read.
    """
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_dir() else ''} {size}\n".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(1 << 16))
            stream.seek(max(0, size - (1 << 16)))
            digest.update(stream.read(1 << 16))
    return digest.hexdigest()


def global_batch_size(options: TrainingOptions, data_world: int) -> int:
    """Return the samples of one optimizer step, over all micro-batches of all ``data_world`` ranks."""
    return options.per_device_train_batch_size * options.gradient_accumulation_steps * data_world


WHY = {"data": ": the files, split, max_length or seed are others"}
"""What stands behind a fingerprint that differs."""


def check_same_run(stored: Mapping[str, Any], ours: Mapping[str, Any], checkpoint: Path) -> None:
    """Compare the identity in a checkpoint with that of this run.

    Raises:
        RefusedError: one problem for each field that differs.
    """
    problems = [
        Problem(
            f"{checkpoint}: {key}",
            _short(ours.get(key)),
            f"was {_short(stored.get(key))} in the run that wrote this checkpoint{WHY.get(key, '')}",
            "Give another --output_dir, or --overwrite_output_dir true to delete that run.",
        )
        for key in [*ours, *(key for key in stored if key not in ours)]
        if stored.get(key) != ours.get(key)
    ]
    if problems:
        raise RefusedError(*problems)


def _short(value: Any) -> str:
    """Return a value as it is read; of a SHA-256 the start is enough."""
    text = "absent" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
