"""A family's weight map held against real files: what is read from where, and every way in which it may not fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import WeightError
from .dtypes import FLOATING
from .transforms import foreign_shapes

if TYPE_CHECKING:
    from ..registry.facts import ModelConfig, WeightMap, WeightRule
    from ..registry.family import Family
    from .source import TensorSource
    from .transforms import Shape

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Transfer:
    """A rule with its layer number filled in."""

    rule: WeightRule
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


def expand(weight_map: WeightMap, num_layers: int) -> list[Transfer]:
    """Fill in the layer numbers of all rules, layer after layer as in the model."""
    transfers: list[Transfer] = []
    blocks: list[WeightRule] = []
    for rule in (*weight_map.rules, None):
        if rule is not None and any("{i}" in name for name in (*rule.ours, *rule.theirs)):
            blocks.append(rule)
            continue
        transfers += [_fill(block, index) for index in range(num_layers) for block in blocks]
        blocks = []
        if rule is not None:
            transfers.append(Transfer(rule, rule.ours, rule.theirs))
    return transfers


def _fill(rule: WeightRule, index: int) -> Transfer:
    ours, theirs = (tuple(name.replace("{i}", str(index)) for name in names) for names in (rule.ours, rule.theirs))
    return Transfer(rule, ours, theirs)


def choose_map(family: Family, config: ModelConfig, source: TensorSource) -> WeightMap:
    """Return the map of the layout whose names occur most in the file; at a draw the file's likeliest layout.

    Raises:
        WeightError: the family has no map for any layout that such a file comes in.
    """
    found = [family.weight_map(config, layout) for layout in source.layouts]
    known = [spelling for weight_map in found if weight_map is not None for spelling in _spellings(weight_map)]
    if not known:
        raise WeightError(
            f"{source.path}: {family.card.name} states no weight names for {_listed(source.layouts)} files."
        )

    def taken(candidate: WeightMap) -> int:
        return sum(name in source.entries for step in expand(candidate, config.num_layers) for name in step.theirs)

    return max(known, key=taken)


def _spellings(weight_map: WeightMap) -> list[WeightMap]:
    """Return the map, and the one without its optional prefix."""
    prefix = weight_map.optional_prefix
    if not prefix:
        return [weight_map]
    rules = tuple(
        replace(rule, theirs=tuple(name.removeprefix(prefix) for name in rule.theirs)) for rule in weight_map.rules
    )
    tied = {copy.removeprefix(prefix): name.removeprefix(prefix) for copy, name in weight_map.tied.items()}
    return [weight_map, replace(weight_map, rules=rules, tied=tied)]


def plan_transfers(
    weight_map: WeightMap, num_layers: int, source: TensorSource, shapes: Mapping[str, Shape]
) -> list[Transfer]:
    """Return what to read, once the file and the model are known to fit each other in every name and shape.

    Args:
        weight_map: of the file's layout.
        num_layers: of the model.
        source: the opened file.
        shapes: of our parameters, by name.

    Raises:
        WeightError: lists missing, unknown and mis-shaped tensors, with their files.
    """
    transfers = expand(weight_map, num_layers)
    _check_rules(transfers, shapes)
    wanted = {name for step in transfers for name in step.theirs}
    missing = [f"{name} is missing" for name in wanted if name not in source.entries]
    unknown = [
        f"{name} (in {source.entries[name].file.name}) is unknown"
        for name in source.entries.keys() - wanted - weight_map.tied.keys()
        if not any(re.fullmatch(pattern, name) for pattern in weight_map.ignore)
    ]
    wrong = [text for step in transfers for text in _misfits(step, source, shapes)]
    problems = sorted(missing) + sorted(unknown) + wrong
    if not problems:
        problems = _false_copies(weight_map, source)
    if problems:
        more = "" if len(problems) <= _SHOWN else f"; and {len(problems) - _SHOWN} more"
        counted = f"{len(problems)} tensors do" if len(problems) > 1 else "1 tensor does"
        raise WeightError(f"{source.path}: {counted} not fit the model: {'; '.join(problems[:_SHOWN])}{more}.")
    return transfers


def _check_rules(transfers: list[Transfer], shapes: Mapping[str, Shape]) -> None:
    """Hold the family to its word: every parameter is covered by exactly one rule."""
    covered = Counter(name for step in transfers for name in step.ours)
    wrong = [name for name in covered.keys() | shapes.keys() if covered[name] != 1 or name not in shapes]
    assert not wrong, f"the family's weight map does not cover these parameters exactly once: {sorted(wrong)[:_SHOWN]}"


def _misfits(step: Transfer, source: TensorSource, shapes: Mapping[str, Shape]) -> Iterable[str]:
    expected = foreign_shapes(step.rule, [shapes[name] for name in step.ours])
    for name, shape in zip(step.theirs, expected, strict=True):
        entry = source.entries.get(name)
        if entry is None:
            continue
        if entry.shape != shape:
            yield f"{name} (in {entry.file.name}) has shape {list(entry.shape)} instead of {list(shape)}"
        elif entry.dtype not in FLOATING:
            yield f"{name} (in {entry.file.name}) holds {entry.dtype} instead of floating-point numbers"


def _false_copies(weight_map: WeightMap, source: TensorSource) -> list[str]:
    """Compare copies of tied weights with their originals, to the bit."""
    wrong = []
    for copy, original in weight_map.tied.items():
        if copy not in source.entries or original not in source.entries:
            continue
        first, second = source.read(original), source.read(copy)
        if not np.array_equal(_bits(first), _bits(second if second.shape == first.shape else second.T)):
            reason = f"differs from {original}, although the configuration ties the two"
            wrong.append(f"{copy} (in {source.entries[copy].file.name}) {reason}")
    return wrong


def _bits(array: np.ndarray) -> np.ndarray:
    """See elements as integers, so that NaN equals itself."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _listed(names: Iterable[str]) -> str:
    return " or ".join(names)
