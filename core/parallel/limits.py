"""What a task cannot do yet under a plan, though the model can be cut so. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Problem
from .degrees import STAGES, TENSOR

if TYPE_CHECKING:
    from ..launch.world import World
    from ..run import RunConfig
    from .plan import ParallelPlan


def check_sharing(plan: ParallelPlan, config: RunConfig, world: World) -> Iterator[Problem]:
    """Yield what a task that answers cannot do with so many processes: they share matrices, and nothing else.

    Args:
        plan: from ``fill_plan``.
        config: of the run.
        world: its processes.
    """
    if plan.mp > 1 and config.quant.quant_type:
        reason = f"rounds whole matrices, and each of the {plan.mp} ranks of {TENSOR} has a part"
        yield Problem("--quant_type", config.quant.quant_type, reason, f"Leave it out, or use {TENSOR} 1.")
    if plan.mp > 1 and config.quant.activations_int8:
        reason = f"is for integer weights, and the ranks of {TENSOR} compute with floats"
        yield Problem("--activations_int8", "true", reason, f"Leave it out, or use {TENSOR} 1.")
    if plan.mp > 1 and config.decoding.mode == "static":
        yield Problem("--mode", "static", "runs a graph that is not split", f"Use dynamic, or {TENSOR} 1.")
    if plan.dp > 1:
        key, value = world.asked_by
        reason = f"makes {world.size} processes; --task {config.task} has work for those of {TENSOR} ({plan.mp})"
        yield Problem(key, value, reason, f"Start {plan.mp}, or use {TENSOR} {world.size}.")


def check_quantizing(plan: ParallelPlan, config: RunConfig, world: World) -> Iterator[Problem]:
    """Yield what does not fit where a model is quantized: ranks share out batches, rows and blocks, as many as there
    are, so that no number of the model has to divide."""
    if plan.mp != world.size:
        key, value = world.asked_by
        processes = "1 process" if world.size == 1 else f"{world.size} processes"
        reason = f"makes {processes}; --task {config.task} has work for those of {TENSOR} ({plan.mp})"
        yield Problem(key, value, reason, f"Start {plan.mp}, or use {TENSOR} {world.size}.")


def check_limits(plan: ParallelPlan, config: RunConfig) -> Iterator[Problem]:
    """Yield what the task of a run has no way to do under its plan."""
    algorithm = config.adapter.weight_quantize_algo
    if plan.mp > 1 and algorithm is not None:
        reason = f"rounds whole matrices, and each of the {plan.mp} ranks of {TENSOR} has a part"
        yield Problem("--weight_quantize_algo", algorithm, reason, f"Leave it out, or use {TENSOR} 1.")
    if plan.mp * plan.pp > 1 and config.evaluation.eval_with_do_generation:
        reason = "needs the whole model on every rank, and each has a part"
        remedy = f"Leave it out, or use {TENSOR} 1 and {STAGES} 1."
        yield Problem("--eval_with_do_generation", "true", reason, remedy)
    elif plan.sharding_stage == 3 and config.evaluation.eval_with_do_generation:
        reason = "needs the whole model on every rank, and sharding stage3 gathers it for steps that all make alike"
        yield Problem("--eval_with_do_generation", "true", reason, "Leave it out, or use --sharding stage2.")
