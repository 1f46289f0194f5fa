"""Saving and finding checkpoints of one output directory. Nothing here imports Paddle.

A checkpoint is a directory ``checkpoint-<step>`` that holds model and optimizer tensors by their logical names, the
trainer's state, and a manifest with the SHA-256 of each file. It is filled under a temporary name and renamed when all
of it is on the disk, so that at any moment, whatever is killed, each ``checkpoint-<step>`` is a whole one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..parallel.agree import by_main
from ..parallel.mesh import Mesh
from .checkpoint_writer import write_checkpoint
from .manifest import NAME as MANIFEST
from .manifest import verify
from .snapshot import Snapshot, TrainerState
from .storage import Storage, is_leftover
from .tensor_files import TensorReader, index_from_json

_log = logging.getLogger("llm_run.trainer")

_NAME = re.compile(r"checkpoint-(\d+)")
_SET_ASIDE = re.compile(r"checkpoint-\d+\.(corrupt|superseded)(-\d+)?")


class TensorPart(Mapping[str, np.ndarray]):
    """The tensors whose names begin with a prefix, under the rest of their names."""

    def __init__(self, reader: TensorReader, prefix: str) -> None:
        self._reader, self._prefix = reader, prefix
        self._names = [name.removeprefix(prefix) for name in reader.index if name.startswith(prefix)]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._reader.read(self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint on the disk."""

    directory: Path
    state: TrainerState
    identity: Mapping[str, Any]
    reader: TensorReader

    def tensors_of(self, part: str) -> TensorPart:
        """Return the tensors of ``model`` or ``optimizer`` by logical name; each is read when it is asked for."""
        return TensorPart(self.reader, f"{part}/")


def read_checkpoint(directory: Path) -> Checkpoint:
    """Verify a checkpoint, all of it, and open it.

    Raises:
        CheckpointError: it is not what was written.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: does not exist")
    verify(directory)
    return open_checkpoint(directory)


def open_checkpoint(directory: Path) -> Checkpoint:
    """Open a checkpoint that another rank has verified.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        index = index_from_json(json.loads((directory / "index.json").read_bytes()))
        trainer = json.loads((directory / "trainer.json").read_bytes())
        state = TrainerState(**trainer["state"])
        identity = trainer["identity"]
        steps = {manifest["step"], state.step}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory}: cannot be read ({error})") from None
    named = _NAME.fullmatch(directory.name)
    if len(steps | ({int(named[1])} if named else set())) != 1:
        raise CheckpointError(f"{directory}: holds step {state.step}, not the one its name says")
    return Checkpoint(directory=directory, state=state, identity=identity, reader=TensorReader(directory, index))


class CheckpointStore:
    """The checkpoints in one output directory, which the caller has locked."""

    def __init__(self, root: Path, storage: Storage | None = None) -> None:
        self.root = root
        self.storage = storage or Storage()

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, newest first."""
        names = (_NAME.fullmatch(path.name) for path in self.root.iterdir() if path.is_dir())
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def path(self, step: int) -> Path:
        """Return the directory of a step's checkpoint."""
        return self.root / f"checkpoint-{step}"

    def save(
        self, snapshot: Snapshot, limit: int | None = None, mesh: Mesh | None = None, *, keep: int | None = None
    ) -> Path:
        """Write a checkpoint, each rank its part of it, and delete the oldest beyond ``limit``, except step ``keep``.

        One that stands there already was verified when this run began, or written by it, and is kept.

        Raises:
            OSError: it could not be written; nothing has changed. Raised on every rank, or on none.
        """
        mesh = mesh or Mesh()
        target = self.path(snapshot.state.step)
        if not by_main(mesh, "a look at the checkpoints", target.exists):
            write_checkpoint(self.storage, target, snapshot, mesh)
        if limit is not None and mesh.is_main:
            self._prune(limit, keep)
        return target

    def newest(self) -> Checkpoint | None:
        """Return the newest valid checkpoint, setting damaged ones aside; ``None`` where there never was one.

        Raises:
            CheckpointError: only damaged ones exist.
        """
        for step in self.steps():
            try:
                return read_checkpoint(self.path(step))
            except CheckpointError as error:
                moved = self.set_aside(step, "corrupt")
                _log.warning("%s. Renamed to %s; trying the one before", error, moved.name)
        names = (_SET_ASIDE.fullmatch(path.name) for path in self.root.iterdir())
        damaged = sorted(name[0] for name in names if name and name[1] == "corrupt")
        if damaged:
            raise CheckpointError(
                f"{self.root}: holds damaged checkpoints only ({', '.join(damaged)}). "
                "To start from step 0, give another --output_dir or --overwrite_output_dir true."
            )
        return None

    def set_aside(self, step: int, why: str) -> Path:
        """Rename a checkpoint so that it is no longer found, and return its new path."""
        source = self.path(step)
        target, number = source.with_name(f"{source.name}.{why}"), 2
        while target.exists():
            target, number = source.with_name(f"{source.name}.{why}-{number}"), number + 1
        self.storage.rename(source, target)
        self.storage.sync_directory(self.root)
        return target

    def discard_all(self) -> None:
        """Delete every checkpoint, also those set aside, for a new run in the same directory."""
        for path in list(self.root.iterdir()):
            if path.is_dir() and (_NAME.fullmatch(path.name) or _SET_ASIDE.fullmatch(path.name)):
                self.storage.discard(path)

    def clean(self) -> None:
        """Remove what killed runs left half-written or half-deleted."""
        for path in list(self.root.iterdir()):
            if path.is_dir() and is_leftover(path):
                self.storage.remove_tree(path)

    def _prune(self, limit: int, keep: int | None) -> None:
        """Keep the newest ``limit`` checkpoints, that of step ``keep``, and the newest that reads back as it was."""
        steps = self.steps()
        if len(steps) <= limit:
            return
        verified = next((step for step in steps if self._is_valid(step)), None)
        for step in steps[limit:]:
            if verified is not None and step not in (verified, keep):
                self._discard_quietly(step)

    def _is_valid(self, step: int) -> bool:
        try:
            read_checkpoint(self.path(step))
        except CheckpointError as error:
            _log.warning("%s", error)
            return False
        return True

    def _discard_quietly(self, step: int) -> None:
        try:
            self.storage.discard(self.path(step))
        except OSError as error:
            _log.warning("%s: cannot be deleted (%s)", self.path(step), error.strerror)
