"""A directory that appears whole or not at all: written beside its place, flushed to disk, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory whose files become those of ``target`` when the block ends without an error.

    A target that is absent or empty appears by one rename. In one that holds other files already (a training run's
    output directory), each file is renamed into place, JSON last, so that a configuration never stands before its
    weights. After an error the target is as it was.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.writing"
    shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
    staging.mkdir()
    try:
        yield staging
        for file in staging.iterdir():
            _flush(file)
        _flush(staging)
        _move(staging, target)
        _flush(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield the path of a new file that becomes ``target`` when the block ends without an error."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".writing.{target.name}"
    try:
        yield staging
        _flush(staging)
        staging.replace(target)
        _flush(target.parent)
    finally:
        staging.unlink(missing_ok=True)


def _move(staging: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        staging.replace(target)
        return
    written = {file.name for file in staging.iterdir()}
    stale = [file for file in target.glob("model*.safetensors*") if file.name not in written]
    for file in sorted(staging.iterdir(), key=lambda file: file.suffix == ".json"):
        file.replace(target / file.name)
    for file in stale:
        file.unlink()
    _flush(target)


def _flush(path: Path) -> None:
    """Ask the disk to keep a file's content, or a directory's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
