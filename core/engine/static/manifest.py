"""What an exported directory says of itself: the files with their hashes, and what its graph asks for. No Paddle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import Problem, RefusedError, WeightError

REPORT = "report.json"
KEY = "export"
"""In the report: what makes a directory an exported one."""
GRAPH_SUFFIX, WEIGHTS_SUFFIX = ".json", ".pdiparams"


@dataclass(frozen=True, slots=True)
class Manifest:
    """An exported directory, as its ``report.json`` describes it."""

    directory: Path
    graph: str
    """Name of the graph's two files, without suffix."""
    inputs: tuple[str, ...]
    """What the graph asks for, in its order."""
    prefix_positions: int
    """Positions of the model that a tuned prefix takes."""
    hashes: Mapping[str, str]
    """SHA-256 by file."""

    def graph_path(self) -> Path:
        """Return the file of the program."""
        return self.directory / f"{self.graph}{GRAPH_SUFFIX}"

    def weights_path(self) -> Path:
        """Return the file of the weights."""
        return self.directory / f"{self.graph}{WEIGHTS_SUFFIX}"

    def verify(self) -> None:
        """Compare every file with its hash.

        Raises:
            WeightError: one is missing or not what was written; the text names it.
        """
        from ...convert.verify import sha256

        for name, expected in self.hashes.items():
            path = self.directory / name
            if not path.is_file():
                raise WeightError(f"{path}: is missing. Export the model again.")
            if sha256(path) != expected:
                raise WeightError(f"{path}: is not what was written (SHA-256 differs from {REPORT}). Export it again.")


def is_exported(path: Path) -> bool:
    """Whether a directory says that it holds an exported graph."""
    try:
        report = json.loads((path / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(report, dict) and KEY in report


def read_manifest(directory: Path) -> Manifest:
    """Read what an exported directory says of itself.

    Raises:
        RefusedError: it is none.
        WeightError: its report is malformed.
    """
    if not is_exported(directory):
        remedy = "Make one with --task export, or leave --mode out."
        raise RefusedError(Problem("--model_name_or_path", str(directory), "holds no exported graph", remedy))
    report = json.loads((directory / REPORT).read_text(encoding="utf-8"))
    try:
        said, files = report[KEY], report["files"]
        manifest = Manifest(
            directory, _plain_name(said["graph"]), tuple(_text(name) for name in said["inputs"]),
            _count(said["prefix_positions"]),
            {_plain_name(name): _text(facts["sha256"]) for name, facts in files.items()},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightError(f"{directory / REPORT}: is malformed ({error!r}). Export the model again.") from error
    for path in (manifest.graph_path(), manifest.weights_path()):
        if path.name not in manifest.hashes:
            raise WeightError(f"{directory / REPORT}: has no hash of {path.name}. Export the model again.")
    return manifest


def taken_positions(path: str | None) -> int:
    """Return the positions that the prefix of an exported model takes; 0 where there is none."""
    return 0 if path is None or not is_exported(Path(path)) else read_manifest(Path(path)).prefix_positions


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _plain_name(value: Any) -> str:
    """Return the name of a file of the directory itself."""
    name = _text(value)
    if name != Path(name).name:
        raise ValueError(f"{name!r} is no file name")
    return name


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no number of positions")
    return value
