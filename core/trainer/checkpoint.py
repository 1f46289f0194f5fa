"""Saving and finding checkpoints of one output directory. Nothing here imports Paddle.

A checkpoint is a directory ``checkpoint-<step>`` that holds model and optimizer tensors by their logical names, the
trainer's state, and a manifest with the SHA-256 of each file. It is filled under a temporary name and renamed when all
of it is on the disk, so that at any moment, whatever is killed, each ``checkpoint-<step>`` is a whole one.
"""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .manifest import verify, write_manifest
from .storage import Storage, WrittenFile, is_leftover
from .tensor_files import IndexEntry, TensorReader, index_from_json, index_to_json, whole_tensors, write_tensors

_log = logging.getLogger("llm_run.trainer")

_NAME = re.compile(r"checkpoint-(\d+)")
_SET_ASIDE = re.compile(r"checkpoint-\d+\.(corrupt|superseded)(-\d+)?")
SPARE = 1.2
"""Free space asked for before a save, as a multiple of the bytes to be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """Where training stands, at the boundary between two steps."""

    step: int = 0
    """Finished steps, skipped ones included."""
    samples: int = 0
    """Samples consumed: the global position of the next one."""
    tokens: int = 0
    """Supervised tokens consumed."""
    updates: int = 0
    """Updates of the optimizer: steps that were not skipped."""
    skipped_in_row: int = 0
    loss_scale: float = 1.0
    loss_scale_good_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a checkpoint holds. The arrays may be views of live tensors: nothing is to change before it is saved."""

    state: TrainerState
    identity: Mapping[str, Any]
    model: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]
    about: Mapping[str, Any]
    """Versions and the like, for the manifest's reader."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(array.nbytes for part in (self.model, self.optimizer) for array in part.values())


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


def write_checkpoint(storage: Storage, target: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint so that ``target`` either holds all of it or does not exist.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    needed, free = int(SPARE * snapshot.num_bytes), storage.free_bytes(target.parent)
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{free / 1e6:.1f} MB are free, {needed / 1e6:.1f} MB are needed", str(target.parent)
        )
    with storage.new_directory(target) as directory:
        files: list[WrittenFile] = []
        index: dict[str, IndexEntry] = {}
        for part, arrays in (("model", snapshot.model), ("optimizer", snapshot.optimizer)):
            name = f"{part}-00000.safetensors"
            named = {f"{part}/{key}": array for key, array in arrays.items()}
            files.append(write_tensors(storage, directory / name, named))
            index |= whole_tensors(name, named)
        texts = {
            "index.json": index_to_json(index),
            "trainer.json": {"state": asdict(snapshot.state), "identity": snapshot.identity},
        }
        for name, body in texts.items():
            files.append(storage.write(directory / name, [json.dumps(body, indent=1).encode()]))
        about = {"step": snapshot.state.step, "samples": snapshot.state.samples, **snapshot.about}
        write_manifest(storage, directory, files, about)


def read_checkpoint(directory: Path) -> Checkpoint:
    """Verify a checkpoint, all of it, and open it.

    Raises:
        CheckpointError: it is not what was written.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: does not exist")
    manifest = verify(directory)
    try:
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

    def save(self, snapshot: Snapshot, limit: int | None = None) -> Path:
        """Write a checkpoint and delete the oldest beyond ``limit``.

        One that stands there already was verified when this run began, or written by it, and is kept.

        Raises:
            OSError: it could not be written; nothing has changed.
        """
        target = self.path(snapshot.state.step)
        if not target.exists():
            write_checkpoint(self.storage, target, snapshot)
        if limit is not None:
            self._prune(limit)
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

    def _prune(self, limit: int) -> None:
        """Keep the newest ``limit`` checkpoints, and in any case the newest that reads back as it was written."""
        steps = self.steps()
        if len(steps) <= limit:
            return
        verified = next((step for step in steps if self._is_valid(step)), None)
        for step in steps[limit:]:
            if verified is not None and step != verified:
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
