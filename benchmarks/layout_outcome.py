"""What a run of ``layouts.py`` has left behind, and how far two runs are from each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def outcome(folder: Path, steps: int) -> dict[str, Any]:
    """Return losses and norms by step, the tensors of the last checkpoint, and the samples that ranks asked for."""
    from llm_run.core.trainer.checkpoint import read_checkpoint
    from llm_run.core.trainer.metrics import read_metrics

    rows = [row for row in read_metrics(folder) if "loss" in row]
    reader = read_checkpoint(folder / f"checkpoint-{steps}").reader
    return {
        "losses": {row["step"]: row["loss"] for row in rows},
        "norms": {row["step"]: row["grad_norm"] for row in rows},
        "tensors": {name: reader.read(name) for name in reader.index},
        "asked": sorted({each for path in folder.glob("asked-*.json") for each in json.loads(path.read_text())}),
    }


def distances(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest difference of losses and norms, relative, and of parameters and moments.

    Args:
        found: of a layout.
        expected: of one process.
    """
    loss, norm = (
        max(abs(value / expected[kind][step] - 1) for step, value in found[kind].items())
        for kind in ("losses", "norms")
    )
    away: dict[str, list[float]] = {}
    for key, array in found["tensors"].items():
        kind = "moments" if key.startswith("optimizer/") else "weights"
        away.setdefault(kind, []).append(float(np.abs(array - expected["tensors"][key]).max()))
    return {"loss": loss, "norm": norm} | {kind: max(values) for kind, values in away.items()}
