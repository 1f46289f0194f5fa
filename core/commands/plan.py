"""``llm-run plan``: what a run would need. Nothing is written, and no weights are loaded."""

from __future__ import annotations

import json
from typing import Any

from ..config.option import TRAINING
from ..estimate.duration import estimate_step, tokens_per_step
from ..estimate.memory import machine_memory, phases
from ..estimate.parameters import ParameterCount, count_parameters, trained_lora
from ..launch.environment import cores
from ..launch.framework import choose_device
from ..launch.kernels import apply_preferences
from ..launch.resident import peak_resident_bytes
from ..launch.start import settle
from ..run import Run
from .table import aligned


def print_plan(run: Run, notes: list[str], form: str, *, may_restart: bool) -> int:
    """Print the plan of a request that has been found free of problems. Imports Paddle."""
    plan = {"task": run.config.task, "family": run.config.family, "notes": notes} | _estimate(run, may_restart)
    print(json.dumps(plan, indent=2) if form == "json" else "\n".join(_lines(plan)))
    return 0


def _estimate(run: Run, may_restart: bool) -> dict[str, Any]:
    launch = run.config.launch
    settle(run, may_restart=may_restart)
    device = choose_device(launch.device, launch.devices)
    apply_preferences(run.config.model)
    base = peak_resident_bytes()
    count = count_parameters(run.family, run.model_config, trained_lora(run))
    peak = max(phases(run, count, base), key=lambda phase: phase.total)
    found = {
        "package": f"{run.family.distribution} {run.family.version}",
        "device": device,
        "processes": launch.nproc_per_node * launch.nnodes,
        "threads": launch.threads or max(1, cores() // launch.nproc_per_node),
        "model": run.model_config.to_fields(),
        "parameters": count.total,
        "peak_memory_bytes": peak.total,
        "peak_phase": peak.name,
        "memory_parts": peak.parts,
        "machine_memory_bytes": machine_memory(),
    }
    return found | (_training(run, count) if run.config.task in TRAINING else {})


def _training(run: Run, count: ParameterCount) -> dict[str, Any]:
    options, duration = run.config.training, estimate_step(run, count)
    steps = options.max_steps if options.max_steps > 0 else None
    return {
        "tokens_per_step": tokens_per_step(run),
        "steps": steps,
        "epochs": None if steps else options.num_train_epochs,
        "seconds_per_step": duration.seconds_per_step,
        "seconds": None if steps is None else steps * duration.seconds_per_step,
        "machine_gflops": duration.flops_per_second / 1e9,
        "share_of_machine": duration.share,
    }


def _lines(plan: dict[str, Any]) -> list[str]:
    facts = [
        ("task", f"{plan['task']}, family {plan['family']} ({plan['package']})"),
        ("device", f"{plan['device']}, {plan['processes']} process, {plan['threads']} threads"),
        ("parameters", f"{plan['parameters']:,}"),
    ]
    if "tokens_per_step" in plan:
        facts += _training_facts(plan)
    memory = [(f"  {name}", gigabytes(size)) for name, size in plan["memory_parts"].items() if size]
    memory.append(("  together", gigabytes(plan["peak_memory_bytes"])))
    available = plan["machine_memory_bytes"]
    if available:
        memory.append(("  this machine has", gigabytes(available)))
    lines = [*aligned(facts), "", f"Peak memory, during {plan['peak_phase']}, in GB", *aligned(memory)]
    if available and plan["peak_memory_bytes"] > available:
        lines += ["", f"warning: this does not fit. {_advice(plan)}"]
    return lines + [f"note: {note}" for note in plan["notes"]]


def _training_facts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    steps = plan["steps"]
    tokens = plan["tokens_per_step"]
    amount = f"{steps:,}, {steps * tokens:,} tokens" if steps else f"{plan['epochs']:g} epochs of the data"
    seconds = plan["seconds_per_step"]
    whole = f", {spell(plan['seconds'])} in all" if steps else ""
    speed = f"{plan['share_of_machine']:.0%} of the {plan['machine_gflops']:.0f} GFLOP/s that this machine makes now"
    return [
        ("a step", f"{tokens:,} tokens"),
        ("steps", amount),
        ("time", f"about {spell(seconds)} a step{whole}, at {speed}"),
    ]


def _advice(plan: dict[str, Any]) -> str:
    if plan["peak_phase"] == "a training step":
        return "Use --recompute, a smaller --per_device_train_batch_size or --max_length, or a smaller model."
    if plan["peak_phase"] == "the rehearsal of saving":
        return "Use --save_rehearsal false, or a smaller model."
    return "Use a smaller model."


def gigabytes(size: int) -> str:
    """Return bytes as GB, right-aligned under each other."""
    return f"{size / 1e9:8.2f}"


def spell(seconds: float) -> str:
    """Return a duration in the unit that people use for it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
