"""Writing a checkpoint: every rank its own files, rank 0 what describes them. Nothing here imports Paddle."""

from __future__ import annotations

import contextlib
import errno
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..parallel.agree import by_main, together
from ..parallel.mesh import Mesh
from .manifest import write_manifest
from .snapshot import Snapshot
from .storage import Storage, WrittenFile, temporary_sibling
from .tensor_files import IndexEntry, index_from_json, index_to_json, merged, owned_blocks, write_tensors

SPARE = 1.2
"""Free space asked for before a save, as a multiple of the bytes to be written."""


def write_checkpoint(storage: Storage, target: Path, snapshot: Snapshot, mesh: Mesh | None = None) -> None:
    """Write a checkpoint so that ``target`` either holds all of it or does not exist.

    Args:
        storage: does the writing.
        target: the directory, on a file system that all ranks see.
        snapshot: of this rank.
        mesh: of this run; every rank must call this.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind. Raised on every rank, or on none.
    """
    mesh = mesh or Mesh()
    num_bytes = sum(mesh.gather(snapshot.num_bytes, "the size of a checkpoint"))
    temporary = Path(by_main(mesh, "the start of a checkpoint", lambda: _begin(storage, target, num_bytes)))
    try:
        written = together(mesh, "the files of a checkpoint", lambda: _write_own(storage, temporary, snapshot, mesh))
        by_main(mesh, "the end of a checkpoint", lambda: _finish(storage, temporary, target, snapshot, written))
    except BaseException:
        if mesh.is_main and temporary.exists():
            with contextlib.suppress(OSError):
                storage.remove_tree(temporary)
        raise


def _begin(storage: Storage, target: Path, num_bytes: int) -> str:
    """Make the directory that is filled, if there is room for it."""
    needed, free = int(SPARE * num_bytes), storage.free_bytes(target.parent)
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{free / 1e6:.1f} MB are free, {needed / 1e6:.1f} MB are needed", str(target.parent)
        )
    temporary = temporary_sibling(target)
    storage.make_directory(temporary)
    return str(temporary)


def _write_own(storage: Storage, directory: Path, snapshot: Snapshot, mesh: Mesh) -> dict[str, Any]:
    """Write the tensors that this rank answers for; return what the manifest and the index say of them."""
    files: list[WrittenFile] = []
    index: dict[str, IndexEntry] = {}
    for part, arrays in snapshot.parts():
        name = f"{part}-{mesh.rank:05d}.safetensors"
        blocks, entries = owned_blocks(name, arrays, snapshot.places)
        if blocks or mesh.is_main:
            files.append(write_tensors(storage, directory / name, blocks))
            index |= entries
    return {"files": [asdict(file) for file in files], "index": index_to_json(index)}


def _finish(storage: Storage, directory: Path, target: Path, snapshot: Snapshot, written: list[dict[str, Any]]) -> None:
    """Write what describes the files of all ranks, and give the directory its name."""
    files = [WrittenFile(**file) for said in written for file in said["files"]]
    texts = {
        "index.json": index_to_json(merged(index_from_json(said["index"]) for said in written)),
        "trainer.json": {"state": asdict(snapshot.state), "identity": snapshot.identity},
    }
    for name, body in texts.items():
        files.append(storage.write(directory / name, [json.dumps(body, indent=1).encode()]))
    about = {"step": snapshot.state.step, "samples": snapshot.state.samples, **snapshot.about}
    write_manifest(storage, directory, files, about)
    storage.sync_directory(directory)
    storage.rename(directory, target)
    storage.sync_directory(target.parent)
