"""``--show_config``: every option of the task with its value, and where the value comes from."""

from __future__ import annotations

from ..config.schema import options
from ..run import RunConfig
from .table import aligned, wrapped

TITLES = {
    "model": "Model",
    "data": "Data",
    "training": "Training",
    "adapter": "Adapter",
    "evaluation": "Evaluation",
    "quant": "Quantization",
    "decoding": "Decoding",
    "convert": "Conversion",
    "serve": "Server",
    "launch": "Processes and devices",
}


def print_configuration(config: RunConfig, notes: list[str]) -> int:
    """Print the options that the task reads, those that somebody set first in sight by their origin."""
    rows = []
    for name, option in options().items():
        if option.is_read_by(config.task):
            value = getattr(getattr(config, option.group), name)
            rows.append((option.group, (name, shown(value), config.origins[name])))
    lines = aligned([row for _, row in rows])
    group = ""
    print(f"family: {config.family or 'as the model directory says'}   task: {config.task}")
    for (name, _), line in zip(rows, lines, strict=True):
        if name != group:
            group = name
            print(f"\n{TITLES[group]}")
        print(f"  {line}")
    if notes:
        print()
    for note in notes:
        print("\n".join(wrapped(note, first="note: ", then="  ")))
    return 0


def shown(value: object) -> str:
    """Return a value as it could be typed behind a flag."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(repr, value)) or "-"
    if isinstance(value, float) and value and abs(value) < 1e-3:
        return f"{value:g}"
    return str(value) if value != "" else "-"
