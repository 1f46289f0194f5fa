"""Parameters whose tensors are cut over the files of tensor-parallel ranks, joined when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from ..parallel.slices import Part
from ..parallel.tensor.arrays import put
from ..parallel.tensor.parts import find_parts
from .dtypes import STORED, to_float32
from .logical import FileTensors
from .transforms import foreign_shapes
from .weights import choose_map, expand, plan_transfers

if TYPE_CHECKING:
    from ..registry.facts import ModelConfig, ShardingRule, WeightMap, WeightRule
    from ..registry.family import Family
    from .source import TensorSource
    from .transforms import Shape

COPIES_DIFFER = 1e-2
"""Of a tensor that every rank has whole: largest difference between two of them, over its largest value. Ranks that
train together drift by rounding; files of different checkpoints differ by more."""


class RankTensors:
    """The parameters of a model (``LogicalTensors``), of which each tensor-parallel rank has a file with its parts."""

    def __init__(self, ranks: Sequence[FileTensors], parts: Sequence[Mapping[str, Part]], names: Sequence[str]) -> None:
        """Join.

        Args:
            ranks: what each rank's file holds.
            parts: which part of each parameter that is.
            names: of the files, for messages.
        """
        self._ranks, self._parts, self._names = ranks, parts, names
        self.shapes: Mapping[str, Shape] = {name: parts[0][name].shape for name in ranks[0].shapes}
        self.facts: dict[str, Any] = {"largest_difference_of_copies": 0.0}
        """What has been found out while tensors were read."""

    def dtype(self, name: str) -> str:
        """Return the type of a parameter: that of all ranks, or the one that holds them all."""
        found = {rank.dtype(name) for rank in self._ranks}
        return found.pop() if len(found) == 1 else "float32"

    def read(self, name: str) -> np.ndarray:
        """Return a whole parameter.

        Raises:
            WeightError: a file is damaged, or ranks have different values of what all of them hold.
        """
        if self._parts[0][name].local_shape == self.shapes[name]:
            return self._read_copies(name)
        whole = np.empty(self.shapes[name], STORED[self.dtype(name)])
        for index, parts in enumerate(self._parts):
            put(self._read_of(index, name), whole, parts[name])
        return whole

    def _read_copies(self, name: str) -> np.ndarray:
        """Return what every rank holds, of rank 0, once the others have been compared with it."""
        kept, dtype = self._read_of(0, name), self.dtype(name)
        for index in range(1, len(self._ranks)):
            other = self._read_of(index, name)
            if np.array_equal(_bits(kept), _bits(other)):
                continue
            first, second = to_float32(kept, dtype), to_float32(other, dtype)
            difference = float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-30))
            if not difference <= COPIES_DIFFER:
                both = f"{self._names[0]} and {self._names[index]}"
                said = f"must be the same on every rank, and differs by {difference:.2g} of its largest value"
                raise WeightError(f"{both}: {name}: {said}. Are both of one checkpoint?")
            known = self.facts["largest_difference_of_copies"]
            self.facts["largest_difference_of_copies"] = max(known, difference)
        return kept

    def _read_of(self, index: int, name: str) -> np.ndarray:
        rank, kind = self._ranks[index], self.dtype(name)
        array = rank.read(name)
        return array if rank.dtype(name) == kind else to_float32(array, rank.dtype(name))


def open_ranks(
    family: Family, config: ModelConfig, sources: Sequence[TensorSource], shapes: Mapping[str, Shape]
) -> RankTensors:
    """Hold the files of tensor-parallel ranks against the model's parameters, and return these joined.

    How a tensor was cut follows from the family's sharding map: keys and values whose heads do not divide are whole
    on every rank, and so is whatever has its whole shape there (a vocabulary that does not divide).

    Args:
        family: states how its parameters split and what they are called.
        config: of the model.
        sources: of each rank, in order.
        shapes: of the parameters of one process, by name.

    Raises:
        WeightError: a file lacks a tensor, has one that is unknown, or one of another shape; or the family cannot be
            split.
    """
    degree = len(sources)
    rules = family.sharding_map(config)
    if rules is None and degree > 1:
        raise WeightError(f"{sources[0].path}: {family.card.name} does not say how its tensors split over ranks.")
    weight_map = choose_map(family, config, sources[0])
    ranks, held = [], []
    for index, source in enumerate(sources):
        parts = {name: Part.whole(shape) for name, shape in shapes.items()}
        if rules is not None and degree > 1:
            parts = find_parts(shapes, config, _as_saved(rules, config, degree), degree=degree, index=index)
        own_map = _of_rank(weight_map, config.num_layers, sources[0], shapes, parts, degree)
        own_shapes = {name: part.local_shape for name, part in parts.items()}
        transfers = plan_transfers(own_map, config.num_layers, source, own_shapes)
        ranks.append(FileTensors(source, transfers, own_shapes))
        held.append(parts)
    return RankTensors(ranks, held, [source.path.name for source in sources])


def _as_saved(rules: Sequence[ShardingRule], config: ModelConfig, degree: int) -> list[ShardingRule]:
    """Return the map with keys and values left whole where their heads do not divide, as PaddleNLP leaves them."""
    is_whole = config.num_kv_heads % degree != 0
    return [
        replace(rule, kind="replicate", layout="plain") if is_whole and rule.layout == "kv_groups" else rule
        for rule in rules
    ]


def _of_rank(
    weight_map: WeightMap, num_layers: int, first: TensorSource, shapes: Mapping[str, Shape], parts: dict[str, Part],
    degree: int,
) -> WeightMap:  # fmt: skip
    """Return the map of one rank's file; in ``parts``, what the ranks hold whole becomes so.

    Args:
        weight_map: of the whole model's file.
        num_layers: of the model.
        first: the file of rank 0, which tells what is whole.
        shapes: of the whole parameters.
        parts: what the rank holds of them.
        degree: number of ranks.
    """
    rules = []
    for step in expand(weight_map, num_layers):
        whole = foreign_shapes(step.rule, [shapes[name] for name in step.ours])
        if [first.entries[name].shape for name in step.theirs if name in first.entries] == whole:
            parts |= {name: Part.whole(shapes[name]) for name in step.ours}
            rule = step.rule
        else:
            rule = _cut(step.rule, [parts[name].local_shape for name in step.ours], degree)
        rules.append(replace(rule, ours=step.ours, theirs=step.theirs))
    return replace(weight_map, rules=tuple(rules))


def _cut(rule: WeightRule, ours: Sequence[Shape], degree: int) -> WeightRule:
    """Return the rule for a tensor of which a rank has its heads, given the shapes of what the rank has of ours."""
    groups = rule.rank_interleave or rule.interleave
    if groups:
        return replace(rule, interleave=(groups[0] // degree, *groups[1:]))
    sizes = tuple(shape[rule.axis] for shape in ours) if len(ours) > 1 else rule.sizes
    return replace(rule, sizes=sizes)


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
