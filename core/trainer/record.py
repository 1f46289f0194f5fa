"""run.json: what ran, so that it can be run again."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..run import Run

NAME = "run.json"
PACKAGES = ("llm-run", "paddlepaddle", "paddlepaddle-gpu", "numpy", "safetensors", "tokenizers", "sentencepiece")
GROUPS = ("model", "data", "training", "adapter", "convert", "launch")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_record(root: Path, run: Run, *, data: Mapping[str, str], resumed_from: int, total_steps: int) -> None:
    """Write ``run.json``: every option with its origin, versions, plugin package, seed, data fingerprints."""
    body = {
        "task": run.config.task,
        "family": {"name": run.config.family, "package": run.family.distribution, "version": run.family.version},
        "seed": run.config.training.seed,
        "total_steps": total_steps,
        "resumed_from": resumed_from,
        "data": dict(data),
        "versions": versions(),
        "options": _options(run),
        "model_config": run.model_config.to_fields(),
    }
    temporary = root / f".{NAME}.tmp"
    temporary.write_text(json.dumps(body, indent=2, default=str) + "\n", encoding="utf-8")
    temporary.replace(root / NAME)


def _options(run: Run) -> dict[str, Any]:
    groups = [getattr(run.config, name) for name in GROUPS]
    return {
        field.name: {
            "value": getattr(group, field.name),
            "origin": run.config.origins.get(field.name, "default"),
        }
        for group in groups
        for field in fields(group)
    }
