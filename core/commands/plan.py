"""``llm-run plan``: what a run would need. Nothing is written, and no weights are loaded."""

from __future__ import annotations

import json
from typing import Any

from ..config.option import TRAINING
from ..estimate.duration import estimate_step, tokens_per_step
from ..estimate.memory import machine_memory
from ..estimate.parameters import ParameterCount, count_parameters
from ..estimate.ranks import RankPlan, plan_ranks
from ..estimate.shapes import find_shapes
from ..launch.environment import cores
from ..launch.framework import choose_device
from ..launch.kernels import apply_preferences
from ..launch.resident import peak_resident_bytes
from ..launch.start import settle
from ..launch.world import find_world
from ..parallel.degrees import fill_plan
from ..parallel.plan import ParallelPlan
from ..run import Run
from .plan_text import plan_lines


def print_plan(run: Run, notes: list[str], form: str, *, may_restart: bool) -> int:
    """Print the plan of a request that has been found free of problems. Imports Paddle."""
    found, ranks = _estimate(run, may_restart)
    plan = {"task": run.config.task, "family": run.config.family, "notes": notes} | found
    if form == "json":
        print(json.dumps(plan | {"ranks": [rank.to_json() for rank in ranks]}, indent=2))
    else:
        print("\n".join(plan_lines(plan, ranks)))
    return 0


def _estimate(run: Run, may_restart: bool) -> tuple[dict[str, Any], list[RankPlan]]:
    launch = run.config.launch
    settle(run, may_restart=may_restart)
    device = choose_device(launch.device, launch.devices)
    apply_preferences(run.config.model)
    base, world = peak_resident_bytes(), find_world(launch)
    shapes, plan = find_shapes(run), fill_plan(launch, world.size)
    count = count_parameters(shapes)
    ranks = plan_ranks(run, shapes, plan, base=base, on_gpu=device == "gpu")
    most = max(ranks, key=lambda rank: rank.peak.total)
    found = {
        "package": f"{run.family.distribution} {run.family.version}",
        "device": device,
        "processes": world.size,
        "processes_here": world.local_size,
        "degrees": {axis: plan.degree(axis) for axis in most.share.coordinates},
        "sharding_stage": plan.sharding_stage,
        "threads": launch.threads or max(1, cores() // world.local_size),
        "model": run.model_config.to_fields(),
        "parameters": count.total,
        "trained_parameters": count.trained,
        "baseline_bytes": base,
        "peak_memory_bytes": most.peak.total,
        "peak_rank": most.share.rank,
        "peak_phase": most.peak.name,
        "memory_parts": most.peak.parts,
        "machine_memory_bytes": machine_memory(),
    }
    return found | (_training(run, count, plan) if run.config.task in TRAINING else {}), ranks


def _training(run: Run, count: ParameterCount, plan: ParallelPlan) -> dict[str, Any]:
    options, duration = run.config.training, estimate_step(run, count, plan)
    steps = options.max_steps if options.max_steps > 0 else None
    return {
        "tokens_per_step": plan.data_world * tokens_per_step(run),
        "steps": steps,
        "epochs": None if steps else options.num_train_epochs,
        "seconds_per_step": duration.seconds_per_step,
        "seconds": None if steps is None else steps * duration.seconds_per_step,
        "machine_gflops": duration.flops_per_second / 1e9,
        "share_of_machine": duration.share,
    }
