"""Arrays that take long to compute, kept on disk under a hash of what they were computed from."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger("llm_run.data")
WORTH_KEEPING = 1 << 16
"""Items below which arrays are computed again faster than they are read."""
WHOLE_FILE = 64 << 20
SAMPLED_BLOCKS, BLOCK = 256, 64 << 10


class IndexCache:
    """A folder of ``<hash>.npz`` files; a folder that cannot be written costs time only."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which is made when the first array is kept."""
        self._folder = folder

    def get(self, description: str, items: int, build: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the arrays of ``build``, from disk where they have been kept.

        Args:
            description: everything that the arrays depend on.
            items: how much work they are; few are never kept.
            build: computes them.
        """
        if items < WORTH_KEEPING:
            return dict(build())
        path = self._folder / f"{hashlib.sha256(description.encode()).hexdigest()[:32]}.npz"
        found = _read(path, description)
        if found is not None:
            return found
        arrays = dict(build())
        self._write(path, description, arrays)
        return arrays

    def _write(self, path: Path, description: str, arrays: Mapping[str, np.ndarray]) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, description=description, names=sorted(arrays), **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            logger.warning("%s: the sample index is not kept: %s", self._folder, error)


def _read(path: Path, description: str) -> dict[str, np.ndarray] | None:
    """Return what was kept, or ``None`` where there is nothing, or nothing whole (zip members carry a checksum)."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["description"]) != description:
                return None
            return {str(name): stored[str(name)] for name in stored["names"]}
    except Exception as error:  # a damaged zip file raises whatever its damaged part leads to
        logger.warning("%s: the kept sample index is damaged and is made anew: %s", path, error)
        return None


def fingerprint_file(path: Path) -> str:
    """Return a hash of a file: of all of it up to 64 MiB, beyond that of its size and of 256 blocks spread over it."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE_FILE:
            digest.update(file.read())
        else:
            for place in range(SAMPLED_BLOCKS):
                file.seek(place * (size - BLOCK) // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
