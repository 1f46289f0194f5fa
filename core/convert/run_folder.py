"""What goes with a checkpoint of a training run into a model directory: the tokenizer and template of that run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Problem, RefusedError
from .tokenizer import find_chat_template, load_tokenizer

if TYPE_CHECKING:
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer
    from ..run import Run

RECORD = "run.json"
"""Lies in a run's ``output_dir``, beside its checkpoints, and says what it was told."""


def tokenizer_and_template(run: Run, checkpoint: Path, task: str) -> tuple[Tokenizer | None, ChatTemplate | None]:
    """Return what training would have written beside the weights.

    Args:
        run: may name the tokenizer; otherwise it is the one that ``run.json`` beside the checkpoint names.
        checkpoint: directory of a checkpoint.
        task: that it was trained by; token files are trained on without a template.

    Raises:
        RefusedError: nobody says which tokenizer it was, or it is not here any more.
        DataError: it is malformed.
    """
    chosen, record = run.config.model.tokenizer_name_or_path, checkpoint.absolute().parent / RECORD
    told = _told(record)
    if chosen is None and told is None:
        reason = f"is needed: there is no {record} that names it"
        raise RefusedError(Problem("--tokenizer_name_or_path", "", reason, "Name the tokenizer of this run."))
    told = told or {}
    source = told.get("model_name_or_path")
    place = chosen or told.get("tokenizer_name_or_path") or source
    if place is not None and not Path(place).exists():
        reason = f"is needed: {record} names {place}, which does not exist here"
        raise RefusedError(Problem("--tokenizer_name_or_path", "", reason, "Name the tokenizer of this run."))
    family, config = run.family, run.model_config
    tokenizer = None if place is None else load_tokenizer(family, config, Path(place))
    if task == "pretrain":
        return tokenizer, None
    here = Path(source) if source and Path(source).exists() else None
    return tokenizer, find_chat_template(family, config, here, told.get("chat_template"))


def _told(record: Path) -> dict[str, Any] | None:
    """Return the options of a run that name its files; ``None`` where it left no record."""
    try:
        options = json.loads(record.read_text(encoding="utf-8"))["options"]
        names = ("tokenizer_name_or_path", "model_name_or_path", "chat_template")
        return {name: options[name]["value"] for name in names}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
