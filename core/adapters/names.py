"""The matrices of an adapter under foreign names: our layers against those of Hugging Face and PaddleNLP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..convert.transforms import to_ours, to_theirs
from ..convert.weights import expand
from ..errors import Problem, RefusedError, WeightError

if TYPE_CHECKING:
    from ..convert.weights import Transfer
    from ..registry.facts import Layout, ModelConfig
    from ..registry.family import Family

WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class LoraTensors:
    """One layer's adapter: A [in, r], B [r, out], and DoRA's length of each column [out]."""

    a: np.ndarray
    b: np.ndarray
    magnitude: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """Of the product."""
        return int(self.a.shape[1])


def to_foreign(
    layers: Mapping[str, LoraTensors], family: Family, config: ModelConfig
) -> Iterator[tuple[str, LoraTensors]]:
    """Yield the adapters by Hugging Face module name.

    A module that is several of our layers gets the sum of their ranks: the rows of A one below the other, and B with a
    block for each of our layers, which is the same function.

    Raises:
        RefusedError: a length of columns (DoRA) is trained for a part of such a module only.
    """
    for step in _steps(family, config, "hf"):
        given = [layers.get(name.removesuffix(WEIGHT)) for name in step.ours]
        found = [layer for layer in given if layer is not None]
        if not found:
            continue
        widths = _widths(step, given, layers)
        a = np.concatenate([layer.a for layer in found], axis=1)
        blocks = _blocks([layer.b if layer else None for layer in given], widths, a.shape[1])
        rule = replace(step.rule, transpose=False)
        magnitudes = [layer.magnitude for layer in found if layer.magnitude is not None]
        if magnitudes and len(magnitudes) != len(given):
            reason = f"trains only a part of {step.theirs[0].removesuffix(WEIGHT)}, which PEFT cannot hold"
            raise RefusedError(Problem("--use_dora", "true", reason, "Adapt all of its layers, or leave DoRA out."))
        lengths = to_theirs(rule, magnitudes) if magnitudes else [None] * len(step.theirs)
        for name, b, length in zip(step.theirs, to_theirs(rule, blocks), lengths, strict=True):
            yield name.removesuffix(WEIGHT), LoraTensors(a, np.ascontiguousarray(b), length)


def to_logical(
    modules: Mapping[str, LoraTensors], family: Family, config: ModelConfig, layout: Layout, rank: int
) -> dict[str, LoraTensors]:
    """Return adapters by our layer names, from those by foreign module names.

    Args:
        modules: what a file holds.
        family: knows the names.
        config: of the model.
        layout: of the file.
        rank: of the adapter; by it a module that ``to_foreign`` put together is taken apart again.

    Raises:
        WeightError: a module is not one of the model.
    """
    steps = [step for step in _steps(family, config, layout) if any(_module(name) in modules for name in step.theirs)]
    unknown = modules.keys() - {_module(name) for step in steps for name in step.theirs}
    if unknown:
        raise WeightError(f"{min(unknown)}: is no module of this {family.card.name} model, but has an adapter.")
    layers: dict[str, LoraTensors] = {}
    for step in steps:
        missing = [_module(name) for name in step.theirs if _module(name) not in modules]
        if missing:
            raise WeightError(f"{missing[0]}: has no adapter, but {_module(step.theirs[0])}, part of one layer, has.")
        layers.update(_of_step(step, [modules[_module(name)] for name in step.theirs], rank))
    return layers


def find_pattern(patterns: Mapping[str, float], module: str) -> float | None:
    """Return the value of the first pattern that ends a module's name, as PEFT looks it up."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), None)


def _steps(family: Family, config: ModelConfig, layout: Layout) -> list[Transfer]:
    """Return the steps of the weight map that are about matrices."""
    weight_map = family.weight_map(config, layout)
    if weight_map is None:
        raise WeightError(f"{family.card.name} states no weight names for {layout} files.")
    steps = expand(weight_map, config.num_layers)
    return [step for step in steps if all(name.endswith(WEIGHT) for name in (*step.ours, *step.theirs))]


def _of_step(step: Transfer, foreign: Sequence[LoraTensors], rank: int) -> Iterator[tuple[str, LoraTensors]]:
    a = np.concatenate([layer.a for layer in foreign], axis=1)
    rule = replace(step.rule, transpose=False)
    widths = [layer.b.shape[1] for layer in foreign]
    try:
        parts = to_ours(rule, _blocks([layer.b for layer in foreign], widths, a.shape[1]))
    except (ValueError, AssertionError) as error:
        raise WeightError(f"{_module(step.theirs[0])}: lora_B does not fit the model ({error}).") from error
    lengths: Sequence[np.ndarray | None] = [None] * len(step.ours)
    if foreign[0].magnitude is not None:
        lengths = to_ours(rule, [layer.magnitude for layer in foreign if layer.magnitude is not None])
    for index, (name, b, length) in enumerate(zip(step.ours, parts, lengths, strict=True)):
        own = slice(index * rank, (index + 1) * rank)
        is_block = len(step.ours) > 1 and a.shape[1] == rank * len(step.ours) and _is_zero_outside(b, own)
        here = own if is_block else slice(None)
        yield _module(name), LoraTensors(np.ascontiguousarray(a[:, here]), np.ascontiguousarray(b[here]), length)


def _widths(step: Transfer, given: Sequence[LoraTensors | None], layers: Mapping[str, LoraTensors]) -> list[int]:
    """Return the outputs of each of our layers; of one without an adapter by the rule, or by its neighbours."""
    known = [layer.b.shape[1] if layer else 0 for layer in given]
    if all(known):
        return known
    sizes = step.rule.sizes if len(step.rule.sizes) == len(known) else ()
    return [width or (sizes[index] if sizes else max(known)) for index, width in enumerate(known)]


def _blocks(parts: Sequence[np.ndarray | None], widths: Sequence[int], rank: int) -> list[np.ndarray]:
    """Return each part [r, out] in rows of its own of a matrix [rank, out] of zeros."""
    blocks, row = [], 0
    for part, width in zip(parts, widths, strict=True):
        block = np.zeros((rank, width), dtype=np.float32)
        if part is not None:
            block[row : row + part.shape[0]] = part
            row += part.shape[0]
        blocks.append(block)
    return blocks


def _is_zero_outside(b: np.ndarray, rows: slice) -> bool:
    outside = np.ones(b.shape[0], dtype=bool)
    outside[rows] = False
    return not b[outside].any()


def _module(name: str) -> str:
    return name.removesuffix(WEIGHT)
