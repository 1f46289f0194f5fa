"""Every option by name, read from the option groups: one table for files, flags, help and checks."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from typing import Any

from .adapters import AdapterOptions
from .evaluation import EvaluationOptions
from .groups import ConvertOptions, DataOptions, DecodingOptions, LaunchOptions, ModelOptions
from .quantization import QuantOptions
from .serving import ServeOptions
from .training import TrainingOptions

GROUPS: dict[str, type] = {
    "model": ModelOptions,
    "data": DataOptions,
    "training": TrainingOptions,
    "adapter": AdapterOptions,
    "evaluation": EvaluationOptions,
    "quant": QuantOptions,
    "decoding": DecodingOptions,
    "convert": ConvertOptions,
    "serve": ServeOptions,
    "launch": LaunchOptions,
}
"""Option groups by their name in ``RunConfig``."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as declared with ``option()`` in a group."""

    name: str
    group: str
    kind: type
    """bool, int, float, str, or tuple for a list of strings."""
    optional: bool
    """``None`` is a value of its own."""
    default: Any
    help: str
    tasks: tuple[str, ...]
    aliases: tuple[str, ...]
    choices: tuple[str, ...]

    def is_read_by(self, task: str) -> bool:
        """Whether ``task`` looks at the option."""
        return "*" in self.tasks or task in self.tasks


@functools.cache
def options() -> dict[str, Option]:
    """Return all options by name, in the order of their groups."""
    return {
        field.name: _describe(group, field, typing.get_type_hints(cls)[field.name])
        for group, cls in GROUPS.items()
        for field in dataclasses.fields(cls)
    }


@functools.cache
def aliases() -> dict[str, str]:
    """Return the option that each other name stands for."""
    return {alias: option.name for option in options().values() for alias in option.aliases}


def _describe(group: str, field: dataclasses.Field[Any], annotation: Any) -> Option:
    kinds = [kind for kind in typing.get_args(annotation) if kind is not types.NoneType]
    union = isinstance(annotation, types.UnionType)
    kind = kinds[0] if union else typing.get_origin(annotation) or annotation
    meta = field.metadata
    return Option(
        field.name, group, kind, union, field.default,
        meta["help"], meta["tasks"], meta["aliases"], meta["choices"],
    )  # fmt: skip
