"""From resolved options to a ``Run``: which family answers, which model it is, and what the two cannot do together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .config.check import check_config
from .config.option import DECODING, QUANTIZING, RECORDS, TRAINING
from .engine.static.manifest import taken_positions
from .errors import LlmRunError, Problem, RefusedError
from .launch.world import find_world
from .parallel.degrees import fill_plan, plan_notes
from .quant.settings import unquantizable
from .registry.capability import check
from .registry.facts import ModelConfig
from .registry.family import Family
from .registry.manager import find_family, load_family, nearest_family
from .run import Run, RunConfig
from .tasks import TASKS

P = ParamSpec("P")
R = TypeVar("R")


def prepare(config: RunConfig, known: Sequence[Problem] = ()) -> tuple[Run, list[str]]:
    """Find the family and the model's shape, and check the whole request. Imports no Paddle.

    Args:
        config: the options.
        known: what is wrong with their spelling already.

    Returns:
        The run, and notes on what was adapted to the model.

    Raises:
        RefusedError: with every problem of options, family and model that can be seen before anything is launched.
        PluginError: the family's plugin is broken.
    """
    found = [*check_config(config), *_missing_tokenizer(config)]
    try:
        family, model = _identify(config, found)
    except LlmRunError as error:
        if known or found:
            raise RefusedError(*_joined(known, [*found, Problem("--family", "", str(error).rstrip("."))])) from error
        raise
    notes: list[str] = []
    if family is not None and model is not None:
        taken = _collected(found, _prefix_positions, config, model) or 0
        config, notes, more = _fit_lengths(config, model, taken)
        config = _fit_evaluation(config, notes)
        world = find_world(config.launch)
        found += [*check(family, model, config, world), *more]
        if config.task in TRAINING:
            notes += plan_notes(config.launch, fill_plan(config.launch, world.size))
    if known or found or family is None or model is None:
        raise RefusedError(*_joined(known, found))
    config = dataclasses.replace(config, family=family.card.name)
    return Run(config=config, family=family, model_config=model), notes


def _missing_tokenizer(config: RunConfig) -> list[Problem]:
    path = config.model.tokenizer_name_or_path
    if path is None or config.task == "data" or Path(path).exists():
        return []
    return [Problem("--tokenizer_name_or_path", path, "does not exist", "Give a folder that holds a tokenizer.")]


def _joined(known: Sequence[Problem], found: list[Problem]) -> list[Problem]:
    """Return all problems; of an option whose spelling or value is wrong, nothing more is told."""
    keys = {_option(problem) for problem in known}
    return [*known, *(problem for problem in found if _option(problem) not in keys)]


def _option(problem: Problem) -> str:
    return problem.key.rpartition(": ")[2].removeprefix("--")


def _identify(config: RunConfig, problems: list[Problem]) -> tuple[Family | None, ModelConfig | None]:
    """Return the family and the shape that the options name; what is refused on the way is added to ``problems``.

    A misspelt family counts as the nearest one, so that the rest is checked as well.
    """
    if config.task not in TASKS:
        if config.family:
            _collected(problems, load_family, config.family)
        return None, None
    path = config.model.tokenizer_name_or_path if config.task == "data" else config.model.model_name_or_path
    before = len(problems)
    if config.task in QUANTIZING and path is not None:
        problems += unquantizable(path)
    is_refused = len(problems) > before
    fields = None if path is None or is_refused else _collected(problems, _read_fields, path, config.task != "data")
    is_unreadable = len(problems) > before
    family = None if is_unreadable and not config.family else _collected(problems, _family, config, fields)
    if family is None and (near := nearest_family(config.family)):
        family = load_family(near)
    if family is None or is_unreadable:
        return family, None
    if fields is not None:
        return family, _collected(problems, family.read_config, fields)
    return family, _collected(problems, _size, family, config.model.model_size or "tiny")


def _collected(problems: list[Problem], act: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R | None:
    """Do one thing; ``None`` where it is refused, and then ``problems`` has grown."""
    try:
        return act(*arguments, **named)
    except RefusedError as error:
        problems += error.problems
        return None


def _family(config: RunConfig, fields: Mapping[str, Any] | None) -> Family:
    if config.family:
        return load_family(config.family)
    if fields is not None:
        return find_family(fields)
    raise RefusedError(Problem("--family", "", "is needed: no model directory says it", _installed_families()))


def _read_fields(path: str, required: bool) -> Mapping[str, Any] | None:
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


def _fit_evaluation(config: RunConfig, notes: list[str]) -> RunConfig:
    """Let ``do_eval`` with ``eval_steps`` evaluate at those steps, as argument files of the seed expect it."""
    training = config.training
    is_said = config.origins.get("evaluation_strategy", "default") != "default"
    if not (training.do_train and training.do_eval) or training.eval_steps is None or is_said:
        return config
    notes.append("evaluation_strategy: steps, because do_eval and eval_steps are given")
    return dataclasses.replace(config, training=dataclasses.replace(training, evaluation_strategy="steps"))


def _prefix_positions(config: RunConfig, model: ModelConfig) -> int:
    """Return how many positions go to a prefix that is trained or used."""
    from .adapters.prefix_settings import PrefixSettings, read_prefix_settings

    if config.task == "prefix_tuning":
        return PrefixSettings.from_options(config.adapter, model).num_positions(model)
    if config.decoding.mode == "static":
        return taken_positions(config.model.model_name_or_path)
    path = config.adapter.prefix_path
    return 0 if path is None else read_prefix_settings(Path(path), model).num_positions(model)


def _fit_lengths(config: RunConfig, model: ModelConfig, taken: int) -> tuple[RunConfig, list[str], list[Problem]]:
    """Bring ``max_length`` and the model's longest sequence together.

    A default gives way to the model; trained weights are refused a sequence that they were not made for. A model
    that is built anew takes the length that the user gave: the training task makes it as long. Positions that are
    ``taken`` (by a prefix) are not left for text.
    """
    data, limit = config.data, model.max_positions - taken
    if limit < 2:
        reason = f"takes all but {limit} of the model's {model.max_positions} positions"
        return config, [], [Problem("--num_prefix_tokens", str(config.adapter.num_prefix_tokens), reason)]
    if taken and config.task in DECODING and data.src_length >= limit:
        return dataclasses.replace(config, data=dataclasses.replace(data, src_length=limit - 1)), [], []
    if config.task not in (*TRAINING, "evaluate", *QUANTIZING) or data.max_length <= limit:
        return config, [], []
    if config.origins.get("max_length", "default") == "default":
        src_length = min(data.src_length, limit // 2)
        notes = [f"max_length: {limit}, the longest sequence of this model"]
        if config.task in (*RECORDS, "evaluate", *QUANTIZING) and src_length < data.src_length:
            notes.append(f"src_length: {src_length}, half of max_length")
        fitted = dataclasses.replace(data, max_length=limit, src_length=src_length)
        return dataclasses.replace(config, data=fitted), notes, []
    is_sized = config.task != "evaluate" and config.model.model_size is not None
    if is_sized or (config.task == "pretrain" and not config.model.continue_training):
        return config, [], []
    reason = f"is longer than the {limit} positions that the model was made for"
    return config, [], [Problem("--max_length", str(data.max_length), reason, f"Use at most {limit}.")]
