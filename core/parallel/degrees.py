"""From options to a plan: degrees of -1 filled in, all arithmetic checked, and the nearest plan that works.

Imports no Paddle, and runs before anything is launched.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import Problem
from .plan import ParallelPlan, padded_vocabulary

if TYPE_CHECKING:
    from ..config.groups import LaunchOptions
    from ..registry.facts import ModelConfig
    from ..run import RunConfig

TENSOR, STAGES, SEP = "--tensor_parallel_degree", "--pipeline_parallel_degree", "--sep_parallel_degree"
SHARDING, VIRTUAL = "--sharding_parallel_degree", "--virtual_pp_degree"

PIPELINE_SHARDING = 1
"""The highest stage of sharding that goes with a pipeline: the others need all gradients of a block at once."""

STAGE_NUMBERS = {"stage1": 1, "stage2": 2, "stage3": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the degrees must fit: numbers of the model and of a batch."""

    num_heads: int
    num_kv_heads: int
    num_layers: int
    ffn_size: int
    vocab_size: int
    length: int
    """Longest row in tokens."""
    micro_batches: int
    """Of one step, on each rank."""

    @classmethod
    def of(cls, model: ModelConfig, config: RunConfig) -> Shape:
        """Read the numbers of a run."""
        return cls(
            num_heads=model.num_heads, num_kv_heads=model.num_kv_heads, num_layers=model.num_layers,
            ffn_size=model.ffn_size, vocab_size=model.vocab_size, length=config.data.max_length,
            micro_batches=config.training.gradient_accumulation_steps,
        )  # fmt: skip


def fill_plan(launch: LaunchOptions, world_size: int) -> ParallelPlan:
    """Return the plan that the options ask for; ``dp`` takes what the other axes leave, rounded down to 1 at least.

    As in the seed, -1 means 1, and for sharding all ranks that are left. Where sharding is not asked for its degree
    is 1, and what needs another axis (pieces of stages, sequence parallelism) is off without it: ``plan_notes``.
    """
    mp, pp, sep = (
        max(1, degree)
        for degree in (launch.tensor_parallel_degree, launch.pipeline_parallel_degree, launch.sep_parallel_degree)
    )
    stage = STAGE_NUMBERS.get(launch.sharding, 0)
    left = max(1, world_size // (mp * pp * sep))
    sharding = (launch.sharding_parallel_degree if launch.sharding_parallel_degree > 0 else left) if stage else 1
    return ParallelPlan(
        dp=max(1, left // sharding), pp=pp, sharding=sharding, sep=sep, mp=mp,
        sharding_stage=stage if sharding > 1 else 0,
        virtual_pp=max(1, launch.virtual_pp_degree) if pp > 1 else 1,
        sequence_parallel=launch.sequence_parallel and mp > 1,
        order=launch.hybrid_parallel_topo_order or "pp_first",
    )  # fmt: skip


def plan_notes(launch: LaunchOptions, plan: ParallelPlan) -> list[str]:
    """Return what the options ask for and the plan has no use for, as the seed warns of it."""
    notes = []
    if launch.sharding and plan.sharding == 1:
        notes.append("sharding: off, since there is one rank to share between")
    if launch.sharding_parallel_degree > 1 and not launch.sharding:
        notes.append("sharding_parallel_degree: not read, since sharding is empty")
    if launch.sequence_parallel and not plan.sequence_parallel:
        notes.append("sequence_parallel: off, since tensor_parallel_degree is 1")
    if launch.virtual_pp_degree > 1 and plan.pp == 1:
        notes.append("virtual_pp_degree: not read, since pipeline_parallel_degree is 1")
    return notes


def check_plan(plan: ParallelPlan, world_size: int, asked_by: tuple[str, str], shape: Shape) -> list[Problem]:
    """Return everything in a plan that cannot be computed, each with the nearest plan that can.

    Args:
        plan: from ``fill_plan``.
        world_size: processes in all.
        asked_by: the flag or variable that says how many, and its value.
        shape: of the model and the batch.
    """
    found = list(_misfits(plan, shape))
    fits = world_size % (plan.world_size // plan.dp) == 0
    if fits and not found:
        return []
    nearest = nearest_plan(plan, world_size, shape)
    remedy = f"Use {changes(plan, nearest)}."
    problems = [Problem(key, value, reason, remedy) for key, value, reason in found]
    if not fits:
        problems.append(_world_problem(plan, world_size, asked_by, "" if found else remedy))
    return problems


def nearest_plan(plan: ParallelPlan, world_size: int, shape: Shape) -> ParallelPlan:
    """Return the plan for ``world_size`` ranks that works and changes the degrees of ``plan`` least.

    Degrees are compared by their ratio, and only lowered. The plan of data parallelism alone always works.
    """
    return min(_working(plan, world_size, shape), key=lambda other: _distance(plan, other))


def changes(plan: ParallelPlan, other: ParallelPlan) -> str:
    """Return the options by which ``other`` differs from ``plan``."""
    pairs = (
        (TENSOR, plan.mp, other.mp), (STAGES, plan.pp, other.pp), (SEP, plan.sep, other.sep),
        (SHARDING, plan.sharding, other.sharding), (VIRTUAL, plan.virtual_pp, other.virtual_pp),
    )  # fmt: skip
    said = [f"{key} {new}" for key, old, new in pairs if old != new]
    if other.sharding_stage not in (0, plan.sharding_stage):
        said.append(f"--sharding stage{other.sharding_stage}")
    return " and ".join(said)


def _working(plan: ParallelPlan, world_size: int, shape: Shape) -> Iterator[ParallelPlan]:
    divisors = [degree for degree in range(1, world_size + 1) if world_size % degree == 0]
    lowered = ([degree for degree in divisors if degree <= most] for most in (plan.mp, plan.pp, plan.sep))
    for mp, pp, sep in itertools.product(*lowered):
        left = world_size // (mp * pp * sep)
        if world_size % (mp * pp * sep):
            continue
        for sharding in (degree for degree in divisors if degree <= plan.sharding and left % degree == 0):
            for virtual in range(plan.virtual_pp if pp > 1 else 1, 0, -1):
                for stage in {plan.sharding_stage, min(plan.sharding_stage, PIPELINE_SHARDING)}:
                    other = replace(
                        plan, dp=left // sharding, pp=pp, sharding=sharding, sep=sep, mp=mp, virtual_pp=virtual,
                        sharding_stage=stage if sharding > 1 else 0,
                        sequence_parallel=plan.sequence_parallel and mp > 1,
                    )  # fmt: skip
                    if next(_misfits(other, shape), None) is None:
                        yield other


def _distance(plan: ParallelPlan, other: ParallelPlan) -> tuple[float, ...]:
    ratios = (plan.mp / other.mp, plan.pp / other.pp, plan.sep / other.sep, plan.sharding / other.sharding)
    lesser = plan.virtual_pp / other.virtual_pp, 1 + max(0, plan.sharding_stage - other.sharding_stage)
    return (round(sum(map(math.log2, ratios)), 9), math.log2(math.prod(lesser)), -other.mp, -other.pp, -other.sep)


def _world_problem(plan: ParallelPlan, world_size: int, asked_by: tuple[str, str], remedy: str) -> Problem:
    ranks = plan.world_size // plan.dp
    key, value = asked_by
    reason = f"makes {world_size} processes in all, which is no multiple of {ranks}, the product of the degrees"
    more = -(-world_size // ranks) * ranks
    return Problem(key, value, reason, f"Start {more} processes{', or u' + remedy[1:] if remedy else '.'}")


def _misfits(plan: ParallelPlan, shape: Shape) -> Iterator[tuple[str, str, str]]:
    """Yield option, value and reason of each degree that the model or the batch does not fit."""
    yield from _tensor_misfits(plan, shape)
    pieces = plan.pp * plan.virtual_pp
    if shape.num_layers < plan.pp:
        yield STAGES, str(plan.pp), f"is more than the {shape.num_layers} layers of the model"
    elif shape.num_layers < pieces:
        yield VIRTUAL, str(plan.virtual_pp), f"makes {pieces} pieces of the {shape.num_layers} layers of the model"
    if plan.virtual_pp > 1 and shape.micro_batches % plan.pp:
        reason = f"needs gradient_accumulation_steps ({shape.micro_batches}) to be a multiple of the {plan.pp} stages"
        yield VIRTUAL, str(plan.virtual_pp), reason
    if shape.num_heads % (plan.mp * plan.sep) and not shape.num_heads % plan.mp:
        reason = f"does not divide the {shape.num_heads // plan.mp} attention heads of each tensor-parallel rank"
        yield SEP, str(plan.sep), reason
    if shape.length % plan.sep:
        yield SEP, str(plan.sep), f"cuts rows of max_length {shape.length} into {plan.sep}, which does not divide it"
    if plan.pp > 1 and plan.sharding_stage > PIPELINE_SHARDING:
        yield "--sharding", f"stage{plan.sharding_stage}", f"does not go with the {plan.pp} stages of a pipeline"


def _tensor_misfits(plan: ParallelPlan, shape: Shape) -> Iterator[tuple[str, str, str]]:
    mp, value = plan.mp, str(plan.mp)
    if shape.num_heads % mp:
        yield TENSOR, value, f"does not divide the {shape.num_heads} attention heads of the model"
    elif shape.num_kv_heads % mp and mp % shape.num_kv_heads:
        reason = f"neither divides the {shape.num_kv_heads} key/value heads of the model nor is a multiple of them"
        yield TENSOR, value, reason
    if shape.ffn_size % mp:
        yield TENSOR, value, f"does not divide the feed-forward width {shape.ffn_size} of the model"
    if padded_vocabulary(shape.vocab_size, mp) // mp * (mp - 1) >= shape.vocab_size:
        yield TENSOR, value, f"leaves a rank without any of the {shape.vocab_size} tokens of the vocabulary"
