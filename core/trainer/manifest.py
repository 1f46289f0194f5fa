"""MANIFEST.json: what a checkpoint directory must hold. Its presence and truth is what makes one valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .storage import CHUNK_BYTES, Storage, WrittenFile

NAME = "MANIFEST.json"
FORMAT = 1


def write_manifest(storage: Storage, directory: Path, files: Iterable[WrittenFile], about: Mapping[str, Any]) -> None:
    """Write the manifest; the last file of a checkpoint.

    Args:
        storage: does the writing.
        directory: of the checkpoint.
        files: every other file in it.
        about: plain facts for the reader (step, samples, versions).
    """
    listed = {file.name: {"bytes": file.size, "sha256": file.sha256} for file in files}
    body = {"format": FORMAT, **about, "files": listed}
    body["sha256"] = _body_hash(body)
    storage.write(directory / NAME, [json.dumps(body, indent=1).encode()])


def verify(directory: Path) -> dict[str, Any]:
    """Read every byte of a checkpoint and compare it with the manifest; return the manifest.

    Raises:
        CheckpointError: the manifest is missing or damaged, or a file is missing, foreign, or not what was written.
    """
    body = _read(directory)
    try:
        _compare(directory, body["files"])
    except OSError as error:
        raise CheckpointError(f"{error.filename or directory}: cannot be read ({error.strerror})") from None
    return body


def _compare(directory: Path, listed: Mapping[str, Any]) -> None:
    for name in sorted({entry.name for entry in directory.iterdir()} - listed.keys() - {NAME}):
        raise CheckpointError(f"{directory / name}: is not in {NAME}")
    for name, facts in listed.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing")
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise CheckpointError(f"{path}: has {size} bytes, {facts['bytes']} were written")
        if _file_hash(path) != facts["sha256"]:
            raise CheckpointError(f"{path}: is damaged (SHA-256 differs from {NAME})")


def _read(directory: Path) -> dict[str, Any]:
    path = directory / NAME
    try:
        raw = path.read_bytes()
        body = json.loads(raw)
        # Written text and hashed text are compared as bytes: a changed space is a change too.
        good = body["sha256"] == _body_hash(body) and raw == json.dumps(body, indent=1).encode()
    except FileNotFoundError:
        raise CheckpointError(f"{directory}: has no {NAME}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
    if not good:
        raise CheckpointError(f"{path}: is damaged (its own SHA-256 differs)")
    if body["format"] != FORMAT:
        raise CheckpointError(f"{path}: has format {body['format']}, this version reads {FORMAT}")
    return dict(body)


def _body_hash(body: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in body.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
