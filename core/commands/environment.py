"""``llm-run env``: all that a bug report needs to know about this machine. Imports Paddle."""

from __future__ import annotations

import json
import os
import platform
from typing import Any

from ..errors import LlmRunError
from ..estimate.memory import machine_memory
from ..launch import environment
from ..launch.framework import choose_device
from ..ops.select import choices
from .families import describe_families
from .plan_text import gigabytes
from .table import aligned, wrapped
from .versions import versions


def print_environment(form: str, *, may_restart: bool) -> int:
    """Print versions, devices, threads, environment, kernels and plugins."""
    threads = environment.cores()
    environment.settle(threads=None, processes=1, training=True, may_restart=may_restart)
    facts = {
        "versions": versions(),
        "machine": _machine(threads),
        "environment": _environment(threads),
        "kernels": {choice.op: {"variant": choice.variant, "reason": choice.reason} for choice in choices()},
        "plugins": describe_families(),
    }
    print(json.dumps(facts, indent=2) if form == "json" else "\n".join(_lines(facts)))
    return 0


def _machine(threads: int) -> dict[str, Any]:
    try:
        device = choose_device("auto")
    except LlmRunError as error:
        device = str(error)
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": environment.cpu_model() or "unknown",
        "cores": threads,
        "memory": f"{gigabytes(machine_memory()).strip()} GB",
        "device": device,
    }


def _environment(threads: int) -> dict[str, dict[str, str]]:
    ours = os.environ.get(environment.MARK, "").split(",")
    settings = environment.wanted(threads=threads, training=True, vendor=environment.cpu_vendor())
    return {
        setting.name: {
            "value": os.environ.get(setting.name, ""),
            "set_by": "llm-run" if setting.name in ours else "user" if setting.name in os.environ else "nobody",
            "reason": setting.reason,
        }
        for setting in settings
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = ["Versions", *aligned([(f"  {name}", value) for name, value in facts["versions"].items()])]
    lines += ["", "Machine", *aligned([(f"  {name}", str(value)) for name, value in facts["machine"].items()])]
    rows = [(f"  {name}", item["value"], f"set by {item['set_by']}") for name, item in facts["environment"].items()]
    lines += ["", "Environment of a training run", *aligned(rows)]
    lines += ["", "Kernels"]
    by_reason: dict[tuple[str, str], list[str]] = {}
    for op, choice in facts["kernels"].items():
        by_reason.setdefault((choice["variant"], choice["reason"]), []).append(op)
    for (variant, reason), ops in by_reason.items():
        lines += wrapped(f"{', '.join(ops)} ({reason})", first=f"  {variant}: ", then="    ")
    lines += ["", "Plugins"]
    for plugin in facts["plugins"]:
        status = plugin["error"] or f"{plugin['package']} {plugin['version']}, {len(plugin['variants'])} variants"
        lines += wrapped(status, first=f"  {plugin['name']}: ", then="    ")
    return lines
