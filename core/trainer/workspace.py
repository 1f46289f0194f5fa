"""The output directory: one run at a time, without what killed runs left behind."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from ..errors import Problem, RefusedError
from .checkpoint import CheckpointStore
from .storage import Storage

LOCK_NAME = ".llm-run.lock"


class Workspace:
    """Holds a lock on ``output_dir`` while entered. The lock dies with the process, however that dies.

    Of several ranks, rank 0 holds it for all.
    """

    def __init__(self, root: Path, storage: Storage | None = None, *, is_main: bool = True) -> None:
        self.root = root
        self.is_main = is_main
        self.checkpoints = CheckpointStore(root, storage)
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self._create()
        if not self.is_main:
            return self
        descriptor = os.open(self.root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise _refused(self.root, f"is in use by another run (process {holder})", "Wait for it, or give") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._lock = descriptor
        self.checkpoints.clean()
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _create(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(self.root, f"cannot be a folder ({error.strerror})") from None
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise _refused(self.root, "cannot be written to")


def _refused(root: Path, reason: str, remedy: str = "Give") -> RefusedError:
    return RefusedError(Problem("--output_dir", str(root), reason, f"{remedy} another directory."))
