"""From resolved options to a ``Run``: which family answers, which model it is, and what the two cannot do together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .config.check import check_config
from .config.option import TRAINING
from .errors import LlmRunError, Problem, RefusedError
from .registry.capability import check
from .registry.facts import ModelConfig
from .registry.family import Family
from .registry.manager import find_family, load_family
from .run import Run, RunConfig


def prepare(config: RunConfig) -> tuple[Run, list[str]]:
    """Find the family and the model's shape, and check the whole request. Imports no Paddle.

    Returns:
        The run, and notes on what was adapted to the model.

    Raises:
        RefusedError: with every problem of options, family and model that can be seen before anything is launched.
        PluginError: the family's plugin is broken.
    """
    problems = check_config(config)
    try:
        family, model = _identify(config)
    except RefusedError as error:
        raise RefusedError(*problems, *error.problems) from error
    except LlmRunError as error:
        if problems:
            raise RefusedError(*problems, Problem("--family", "", str(error).rstrip("."))) from error
        raise
    problems += check(family, model, config)
    config, notes, more = _fit_lengths(config, model)
    if problems or more:
        raise RefusedError(*problems, *more)
    config = dataclasses.replace(config, family=family.card.name)
    return Run(config=config, family=family, model_config=model), notes


def _identify(config: RunConfig) -> tuple[Family, ModelConfig]:
    """Return the family and the shape that the options name."""
    path = config.model.model_name_or_path
    if config.task == "data":
        path = config.model.tokenizer_name_or_path
    fields = _read_fields(path, required=config.task != "data") if path is not None else None
    family = load_family(config.family) if config.family else find_family(fields) if fields is not None else None
    if family is None:
        raise RefusedError(Problem("--family", "", "is needed: no model directory says it", _installed_families()))
    if fields is not None:
        return family, family.read_config(fields)
    return family, _size(family, config.model.model_size or "tiny")


def _read_fields(path: str, *, required: bool) -> Mapping[str, Any] | None:
    """Return the model's ``config.json``; ``None`` where a tokenizer's folder has none."""
    from .convert.fields import read_fields

    if not Path(path).exists():
        key = "--model_name_or_path" if required else "--tokenizer_name_or_path"
        raise RefusedError(Problem(key, path, "does not exist", "Models are folders or files on this machine."))
    if not required and Path(path).is_dir() and not (Path(path) / "config.json").exists():
        return None
    return read_fields(Path(path))


def _installed_families() -> str:
    from .registry.manager import installed

    return f"Installed: {', '.join(installed().families) or 'none'}."


def _size(family: Family, name: str) -> ModelConfig:
    sizes = family.card.sizes
    if name in sizes:
        return sizes[name]
    near = get_close_matches(name, sizes, n=1)
    remedy = f"Did you mean '{near[0]}'?" if near else f"Variants: {', '.join(sizes)}."
    raise RefusedError(Problem("--model_size", f"'{name}'", f"is not a variant of {family.card.name}", remedy))


def _fit_lengths(config: RunConfig, model: ModelConfig) -> tuple[RunConfig, list[str], list[Problem]]:
    """Bring ``max_length`` and the model's longest sequence together.

    A default gives way to the model; trained weights are refused a sequence that they were not made for. A model
    that is built anew takes the length that the user gave: the training task makes it as long.
    """
    data, limit = config.data, model.max_positions
    if config.task not in TRAINING or data.max_length <= limit:
        return config, [], []
    if config.origins.get("max_length", "default") == "default":
        src_length = min(data.src_length, limit // 2)
        notes = [f"max_length: {limit}, the longest sequence of this model"]
        if config.task == "sft" and src_length < data.src_length:
            notes.append(f"src_length: {src_length}, half of max_length")
        fitted = dataclasses.replace(data, max_length=limit, src_length=src_length)
        return dataclasses.replace(config, data=fitted), notes, []
    is_new = config.model.model_size is not None or (config.task == "pretrain" and not config.model.continue_training)
    if is_new:
        return config, [], []
    reason = f"is longer than the {limit} positions that the model was made for"
    return config, [], [Problem("--max_length", str(data.max_length), reason, f"Use at most {limit}.")]
