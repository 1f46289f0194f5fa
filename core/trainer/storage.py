"""The file-system operations that saving is made of, each behind one small method.

Every change to the disk goes through ``Storage``, so that a test can replace it by one that dies, or reports a full
disk, at the n-th operation. Nothing here imports Paddle.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """Size and hash of a file, as they were when it was written."""

    name: str
    size: int
    sha256: str


class Storage:
    """Durable writes: data and directory entries are on the disk when a method returns."""

    def make_directory(self, path: Path) -> None:
        """Create a new directory."""
        path.mkdir()

    def write(self, path: Path, chunks: Iterable[bytes | memoryview]) -> WrittenFile:
        """Write a new file, hash it on the way, and wait until it is on the disk."""
        digest, size = hashlib.sha256(), 0
        with open(path, "xb") as file:
            for chunk in _bounded(chunks):
                self.write_chunk(file.fileno(), chunk)
                digest.update(chunk)
                size += len(chunk)
            self.sync_file(file.fileno())
        return WrittenFile(path.name, size, digest.hexdigest())

    def write_chunk(self, descriptor: int, chunk: memoryview) -> None:
        """Write all of ``chunk``."""
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]

    def sync_file(self, descriptor: int) -> None:
        """Wait until the file's data is on the disk."""
        os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Wait until the directory's entries are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename within one file system: the old state or the new one, never half."""
        os.rename(source, target)

    def remove_tree(self, path: Path) -> None:
        """Delete a directory and all in it."""
        shutil.rmtree(path)

    def free_bytes(self, path: Path) -> int:
        """Return the space that is free for us on the file system of ``path``."""
        return shutil.disk_usage(path).free

    def discard(self, path: Path) -> None:
        """Delete a directory so that its name never stands for half of it: rename it away first."""
        trash = path.with_name(f".trash-{uuid.uuid4().hex}")
        self.rename(path, trash)
        self.remove_tree(trash)


def temporary_sibling(target: Path) -> Path:
    """Return an unused name beside ``target`` that ``is_leftover`` knows."""
    return target.with_name(f".{target.name}.tmp-{uuid.uuid4().hex}")


def is_leftover(path: Path) -> bool:
    """Whether a directory is what a killed run of ours left behind."""
    stem, _, tail = path.name.rpartition("-")
    ours = (stem.startswith(".") and stem.endswith(".tmp")) or stem == ".trash"
    return ours and len(tail) == 32 and set(tail) <= set("0123456789abcdef")


def _bounded(chunks: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Cut into pieces of at most ``CHUNK_BYTES``, so that hashing finds the data still in the processor's cache."""
    for chunk in chunks:
        view = memoryview(chunk).cast("B") if len(chunk) else memoryview(b"")
        for first in range(0, len(view), CHUNK_BYTES):
            yield view[first : first + CHUNK_BYTES]
