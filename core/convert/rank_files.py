"""PaddleNLP's files of single ranks (``model_state.tp01_pp00.pdparams``): which there are, and that none is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from .paddle_file import PaddleFile
from .shards import Shards

if TYPE_CHECKING:
    from .source import TensorSource

PATTERN = "model_state.*.pdparams"
_RANKS = re.compile(r"model_state\.(?:tp(?P<tp>\d+)(?:_pp(?P<pp>\d+))?|pp(?P<alone>\d+))\.pdparams")
DEGREES = ("tensor_parallel_degree", "pipeline_parallel_degree")
"""Fields of PaddleNLP's ``config.json``; absent, -1 or 1 where they say nothing."""


def find_rank_files(directory: Path) -> dict[tuple[int, int], Path]:
    """Return the files of single ranks in a directory, by tensor-parallel rank and pipeline stage.

    Raises:
        WeightError: two files are of the same rank, or a file's name says no rank.
    """
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(directory.glob(PATTERN)):
        said = _RANKS.fullmatch(path.name)
        if said is None:
            known = ", ".join(f"model_state.{ranks}.pdparams" for ranks in ("tp00_pp00", "tp00", "pp00"))
            raise WeightError(f"{path}: is of no rank that can be merged. Such files are called {known}.")
        rank = int(said["tp"] or 0), int(said["pp"] or said["alone"] or 0)
        if rank in found:
            raise WeightError(f"{directory}: {found[rank].name} and {path.name} are of the same rank. Remove one.")
        found[rank] = path
    return found


def open_rank_files(directory: Path, fields: Mapping[str, Any]) -> list[TensorSource]:
    """Open the files of single ranks, the stages of each tensor-parallel rank as one source.

    Args:
        directory: where they lie.
        fields: its ``config.json``, which may say how many ranks there were.

    Raises:
        WeightError: a file is missing, damaged or unsafe, or two stages have different values for one tensor.
    """
    paths = find_rank_files(directory)
    tensor, stages = _degrees(directory, paths, fields)
    return [_open_stages([paths[rank, stage] for stage in range(stages)]) for rank in range(tensor)]


def _degrees(directory: Path, paths: Mapping[tuple[int, int], Path], fields: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many tensor-parallel ranks and stages there are, once each is known to have its file."""
    degrees = [1 + max(rank[axis] for rank in paths) for axis in (0, 1)]
    for axis, name in enumerate(DEGREES):
        said = fields.get(name)
        if isinstance(said, int) and 1 < said < degrees[axis]:
            reason = f"there are files of {degrees[axis]} ranks, but config.json has {name} {said}"
            raise WeightError(f"{directory}: {reason}. Keep the files of one checkpoint only.")
        degrees[axis] = max(degrees[axis], said) if isinstance(said, int) else degrees[axis]
    tensor, stages = degrees
    wanted = [(rank, stage) for rank in range(tensor) for stage in range(stages)]
    missing = [_name(rank, paths) for rank in wanted if rank not in paths]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        ranks = f"{tensor} tensor-parallel rank{'s' * (tensor > 1)} and {stages} pipeline stage{'s' * (stages > 1)}"
        verb = "is" if len(missing) == 1 else "are"
        raise WeightError(f"{directory}: {', '.join(missing[:3])}{more} {verb} missing, of {ranks}. Copy all files.")
    return tensor, stages


def _name(rank: tuple[int, int], paths: Mapping[tuple[int, int], Path]) -> str:
    """Return the name of a rank's file, spelt like those that are there."""
    example = next(iter(paths.values())).name
    parts = [f"{axis}{number:02d}" for axis, number in zip(("tp", "pp"), rank, strict=True) if axis in example]
    return f"model_state.{'_'.join(parts)}.pdparams"


def _open_stages(paths: list[Path]) -> TensorSource:
    """Open the files of one tensor-parallel rank.

    The first and the last stage both have a tied embedding: the same tensor may lie in several files.
    """
    files: list[TensorSource] = [PaddleFile(path) for path in paths]
    if len(files) == 1:
        return files[0]
    owners: dict[str, TensorSource] = {}
    for file in files:
        for name in file.entries:
            other = owners.setdefault(name, file)
            if other is not file and not _are_equal(other, file, name):
                both = f"{other.path.name} and in {file.path.name}"
                raise WeightError(f"{paths[0].parent}: {name} lies in {both}, with other values. Keep the right one.")
    return Shards(paths[0].parent / re.sub(r"pp\d+", "pp*", paths[0].name), files)


def _are_equal(first: TensorSource, second: TensorSource, name: str) -> bool:
    return first.entries[name].shape == second.entries[name].shape and np.array_equal(
        np.ascontiguousarray(first.read(name)).view(np.uint8), np.ascontiguousarray(second.read(name)).view(np.uint8)
    )
