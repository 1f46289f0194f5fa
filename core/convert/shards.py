"""Weights cut into several files, with an ``.index.json`` that says which tensor lies where."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightError
from .source import TensorEntry, TensorSource

if TYPE_CHECKING:
    import numpy as np


class Shards(TensorSource):
    """Several files read as one."""

    def __init__(self, path: Path, files: list[TensorSource]) -> None:
        self.path = path
        self.layouts = files[0].layouts
        self._owners = {name: file for file in files for name in file.entries}
        self.entries: Mapping[str, TensorEntry] = {name: own.entries[name] for name, own in self._owners.items()}

    def read(self, name: str) -> np.ndarray:
        return self._owners[name].read(name)


def open_shards(index: Path, opener: Callable[[Path], TensorSource]) -> Shards:
    """Open all shards that an index names, and check that each holds what the index says.

    Raises:
        WeightError: the index is malformed, names a file outside its directory, or disagrees with the files.
    """
    weight_map = _read_weight_map(index)
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or "\0" in name or name in ("", ".", ".."):
            raise WeightError(f"{index}: {name!r} is not a plain file name. Shards must lie beside their index.")
        if not (index.parent / name).is_file():
            raise WeightError(f"{index}: names the shard {name}, which is missing.")
    files = [opener(index.parent / name) for name in names]
    _check_agreement(index, weight_map, files)
    return Shards(index.parent, files)


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(index.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightError(f"{index}: is not valid JSON: {error}.") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise WeightError(f"{index}: has no weight_map from tensor names to file names.")
    return weight_map


def _check_agreement(index: Path, weight_map: dict[str, str], files: list[TensorSource]) -> None:
    """Hold the index against the files, both ways: a stale shard must not pass for a whole model."""
    found: dict[str, str] = {}
    for file in files:
        for name in file.entries:
            if name in found:
                raise WeightError(f"{index}: {name} lies in two shards, {found[name]} and {file.path.name}.")
            found[name] = file.path.name
    for name in weight_map.keys() | found.keys():
        if weight_map.get(name) != found.get(name):
            said, held = weight_map.get(name, "no shard"), found.get(name, "no shard")
            raise WeightError(f"{index}: says that {name} lies in {said}, but {held} holds it.")
