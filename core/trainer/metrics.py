"""metrics.jsonl: one JSON object a logged step or evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends to ``metrics.jsonl``, each line at once."""

    def __init__(self, root: Path, *, keep_through: int) -> None:
        """Open the file; lines of steps after ``keep_through``, which will be done again, are taken out."""
        path = root / NAME
        kept = [row for row in read_metrics(root) if row["step"] <= keep_through]
        temporary = path.with_name(f".{NAME}.tmp")
        temporary.write_text("".join(_line(row) for row in kept), encoding="utf-8")
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one object; its ``step`` is required."""
        self._file.write(_line(row))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(root: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's ``metrics.jsonl``; a last line that a kill cut short is left out."""
    path = root / NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _line(row: Mapping[str, Any]) -> str:
    # Inf and nan are not JSON; a reader gets null.
    finite = {key: None if isinstance(value, float) and not _is_finite(value) else value for key, value in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def _is_finite(value: float) -> bool:
    return value - value == 0.0
