"""What each rank of a plan holds of a model: by the same arithmetic as the ranks themselves, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..parallel.pipeline.cut import Cut, cut_model
from ..parallel.plan import AXES, Axis, ParallelPlan
from ..parallel.slices import Part
from ..parallel.tensor.parts import Rules, find_parts
from ..parallel.units import Kind, divide, even_rows

if TYPE_CHECKING:
    from .shapes import ModelShapes, Shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitShare:
    """Parameters that are gathered and reduced together, as one rank sees them."""

    kind: Kind
    values: int
    """Of all of it."""
    own: int
    """Of this rank's rows."""
    length: int
    """What each rank sends of it: the most that one has, since shorter shares are filled up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """What one rank has of a model. Every parameter is 4 bytes."""

    rank: int
    coordinates: Mapping[Axis, int]
    groups: Mapping[Axis, tuple[int, ...]]
    """Ranks that this one talks to on each axis that has several, itself among them."""
    sections: tuple[tuple[int, ...], ...]
    """Numbers of the blocks in each piece of the model that it computes: one piece, or several of a pipeline."""
    model: Shapes
    """Of the parameters that it computes with: its stage's, and its part of each matrix."""
    trained: Shapes
    """Of those that learn: the model's, or an adapter's beside them."""
    parts: Mapping[str, Part]
    """Which part of the logical parameter each of ``model`` is."""
    units: tuple[UnitShare, ...]
    """Of what learns, where it is sharded."""
    frozen_units: tuple[UnitShare, ...]
    """Of what is frozen under an adapter, where ranks have rows of that as well."""
    frozen_whole: int
    """Values of the frozen model that it has besides, at all times."""
    is_frozen: bool
    reduces_early: bool
    """Gradients are reduced to this rank's rows as soon as there are any (sharding stages 2 and 3)."""
    keeps_rows: bool
    """The model lies here as this rank's rows, and is gathered to compute (sharding stage 3)."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Numbers of all its blocks."""
        return tuple(sorted(block for section in self.sections for block in section))

    @property
    def computed(self) -> int:
        """Values of the model that it computes with."""
        return _size(self.model)

    @property
    def updated(self) -> int:
        """Values that it has the optimizer's moments of."""
        return sum(unit.own for unit in self.units) if self.units else _size(self.trained)

    @property
    def kept(self) -> int:
        """Values of the model and its adapter that it has at all times."""
        trained = self.updated if self.keeps_rows else _size(self.trained)
        return trained + sum(unit.own for unit in self.frozen_units) + self.frozen_whole

    @property
    def largest(self) -> int:
        """Values of the largest tensor."""
        return max(map(math.prod, self.model.values()), default=0)


class Layout:
    """A model laid out over the ranks of a plan."""

    def __init__(self, shapes: ModelShapes, plan: ParallelPlan, coded: Collection[str] = ()) -> None:
        """Cut the model as its family says.

        Args:
            shapes: of the model and its adapter.
            plan: of the ranks.
            coded: names of matrices that are codes, which ranks do not share in stage 3.

        Raises:
            PluginError: the family says it wrongly.
        """
        self.shapes, self.plan, self.coded = shapes, plan, coded
        family, config = shapes.family, shapes.config
        self.rules: Rules = family.sharding_map(config) or () if plan.mp > 1 else ()
        self.cut: Cut | None = None
        if plan.pp > 1:
            pieces = family.pipeline_split(config)
            assert pieces is not None, "a pipeline of a family that cannot be cut is refused before"
            self.cut = cut_model(pieces, shapes.model, stages=plan.pp, virtual=plan.virtual_pp)

    def rank(self, rank: int) -> RankShare:
        """Return what a rank has."""
        plan, place = self.plan, self.plan.coordinates(rank)
        parts = self._parts(place)
        model = {name: part.local_shape for name, part in parts.items()}
        is_frozen, index = self.shapes.is_frozen, place["sharding"]
        trained = self.shapes.adapter(parts) if is_frozen else model
        rows = {name: shape for name, shape in model.items() if name not in self.coded} if is_frozen else {}
        if plan.sharding_stage < 3:
            rows = {}
        return RankShare(
            rank=rank,
            coordinates=place,
            groups={axis: plan.group_of(rank, axis) for axis in AXES if plan.degree(axis) > 1},
            sections=self._sections(place["pp"]),
            model=model,
            trained=trained,
            parts=parts,
            units=self._units(trained, parts, index) if plan.sharding_stage else (),
            frozen_units=self._units(rows, parts, index),
            frozen_whole=_size(model) - _size(rows) if is_frozen else 0,
            is_frozen=is_frozen,
            reduces_early=plan.sharding_stage >= 2,
            keeps_rows=plan.sharding_stage == 3,
        )

    def _sections(self, stage: int) -> tuple[tuple[int, ...], ...]:
        if self.cut is None:
            return (tuple(range(self.shapes.config.num_layers)),)
        return tuple(tuple(section.blocks) for section in self.cut.of_stage(stage))

    def _parts(self, place: Mapping[Axis, int]) -> dict[str, Part]:
        """Return what ranks at a place have of the model's parameters, before sharding."""
        held = {
            name: shape
            for name, shape in self.shapes.model.items()
            if self.cut is None or self.cut.holds(place["pp"], name)
        }
        if self.plan.mp == 1:
            return {name: Part.whole(shape) for name, shape in held.items()}
        return find_parts(held, self.shapes.config, self.rules, degree=self.plan.mp, index=place["mp"])

    def _units(self, trained: Shapes, parts: Mapping[str, Part], index: int) -> tuple[UnitShare, ...]:
        """Return the units of what learns, as rank ``index`` of those that share it sees them."""
        logical = {name: parts[name].shape if name in parts else shape for name, shape in trained.items()}
        found = []
        for together in divide(logical, self.shapes.config.vocab_size):
            lengths = [0] * self.plan.sharding
            for shape in (trained[name] for name in together.names):
                for rank, (first, end) in enumerate(even_rows(shape[0], self.plan.sharding)):
                    lengths[rank] += (end - first) * math.prod(shape[1:])
            found.append(UnitShare(kind=together.kind, values=sum(lengths), own=lengths[index], length=max(lengths)))
        return tuple(found)


def _size(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))
