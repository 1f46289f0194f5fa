"""The plan of each rank: what it holds, its peak memory, and what it sends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.option import QUANTIZING, TRAINING
from .activations import FLOAT, GRANULARITIES, StepActivations
from .coded import coded_part, coded_weights
from .communication import Traffic, traffic_of_step
from .layout import Layout, RankShare
from .memory import Phase, peak_of

if TYPE_CHECKING:
    from ..parallel.plan import ParallelPlan
    from ..run import Run
    from .shapes import ModelShapes


@dataclass(frozen=True, slots=True)
class RankPlan:
    """What is foreseen of one rank."""

    share: RankShare
    peak: Phase
    traffic: tuple[Traffic, ...]
    """Of one step; empty where nothing is trained."""
    activations: Mapping[str, int]
    """Bytes, by what is recomputed; empty where nothing is trained."""
    parameter_bytes: int
    """Of what it holds at all times of the run's parameters, an adapter's among them; of a coded matrix, its codes."""
    parameter_share: float
    """How much of all of them that is, by their number."""

    @property
    def sent(self) -> int:
        """Bytes that it gives to all calls of a step."""
        return sum(traffic.size for traffic in self.traffic)

    @property
    def alike(self) -> tuple[Any, ...]:
        """What is the same of ranks that people see as one line."""
        megabyte = 1_000_000
        calls = tuple((one.axes, one.operation, one.calls) for one in self.traffic)
        return self.share.sections, self.peak.total // (10 * megabyte), self.sent // megabyte, calls

    def to_json(self) -> dict[str, Any]:
        """Return it as ``--format json`` prints it."""
        return {
            "rank": self.share.rank,
            "coordinates": dict(self.share.coordinates),
            "groups": {axis: list(ranks) for axis, ranks in self.share.groups.items()},
            "layers": list(self.share.blocks),
            "parameter_bytes": self.parameter_bytes,
            "optimizer_bytes": 2 * FLOAT * self.share.updated,
            "parameter_share": self.parameter_share,
            "peak_phase": self.peak.name,
            "peak_memory_bytes": self.peak.total,
            "memory_parts": self.peak.parts,
            "activations_by_recompute": dict(self.activations),
            "communication": [
                {
                    "axes": one.axes, "ranks": list(one.ranks), "operation": one.operation, "calls": one.calls,
                    "bytes": one.size,
                }
                for one in self.traffic
            ],
        }  # fmt: skip


def plan_ranks(run: Run, shapes: ModelShapes, plan: ParallelPlan, *, base: int, on_gpu: bool) -> list[RankPlan]:
    """Return the plan of every rank.

    Args:
        run: the checked request.
        shapes: of its model.
        plan: of the ranks.
        base: bytes of a process with Paddle and without a model.
        on_gpu: ranks talk through NCCL, not gloo.
    """
    if run.config.task in QUANTIZING:
        return _quantizing(run, shapes, plan, base)
    layout, found = Layout(shapes, plan, coded_weights(run, plan) if shapes.is_frozen else ()), []
    total = sum(map(math.prod, (*shapes.model.values(), *(shapes.adapter().values() if shapes.is_frozen else ()))))
    for rank in range(plan.world_size):
        share = layout.rank(rank)
        traffic: list[Traffic] = []
        activations: dict[str, int] = {}
        if run.config.task in TRAINING:
            traffic = traffic_of_step(run, layout, share, on_gpu=on_gpu)
            activations = {mode: StepActivations.of(run, share, plan, mode).all for mode in GRANULARITIES}
        held = FLOAT * share.kept - coded_part(run, share, plan).saved
        peak = peak_of(run, share, plan, base)
        found.append(RankPlan(share, peak, tuple(traffic), activations, held, share.kept / total))
    return found


def _quantizing(run: Run, shapes: ModelShapes, plan: ParallelPlan, base: int) -> list[RankPlan]:
    from .quantizing import QuantizingLayout

    layout, total = QuantizingLayout(run, shapes, plan, base=base), sum(map(math.prod, shapes.model.values()))
    ranks = [layout.rank(rank) for rank in range(plan.world_size)]
    return [RankPlan(each.share, each.peak, (), {}, each.held_bytes, each.share.computed / total) for each in ranks]
