"""Writing ``<prefix>.bin`` and ``<prefix>.idx`` so that they appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from .token_file import MMAP_MAGIC

if TYPE_CHECKING:
    from io import BufferedWriter
    from types import TracebackType

CODES = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}


class TokenFileWriter:
    """Appends documents; ``with`` removes the temporary files unless ``finish`` was called."""

    def __init__(self, prefix: Path, vocab_size: int) -> None:
        """Open temporary files beside the final ones.

        Args:
            prefix: path without suffix; its folder is made.
            vocab_size: below 65535 tokens take two bytes, else four.
        """
        self.dtype = np.dtype(np.uint16 if vocab_size < 65535 else np.int32)
        self.num_tokens = 0
        self._paths = {suffix: Path(f"{prefix}{suffix}") for suffix in (".bin", ".idx")}
        self._temporary = {suffix: Path(f"{prefix}{suffix}.{os.getpid()}.tmp") for suffix in self._paths}
        prefix.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary[".bin"].open("wb")
        self._sizes: list[np.ndarray] = []
        self._digest = hashlib.sha256()

    @property
    def num_documents(self) -> int:
        """Documents so far."""
        return sum(len(sizes) for sizes in self._sizes)

    def add(self, tokens: np.ndarray, sizes: np.ndarray) -> None:
        """Append documents that lie end to end in ``tokens``; ``sizes`` are their lengths."""
        content = tokens.astype(self.dtype).tobytes()
        self._file.write(content)
        self._digest.update(content)
        self._sizes.append(sizes.astype(np.int32))
        self.num_tokens += len(tokens)

    def finish(self) -> str:
        """Put both files into place and return the SHA-256 of the tokens; the index comes last."""
        _sync_and_close(self._file)
        sizes = np.concatenate([np.zeros(0, np.int32), *self._sizes])
        ends = np.cumsum(sizes, dtype=np.int64)
        with self._temporary[".idx"].open("wb") as file:
            count = len(sizes)
            file.write(MMAP_MAGIC + struct.pack("<QBQQ", 1, CODES[self.dtype], count, count + 1))
            for array, kind in (
                (sizes, "<i4"),
                ((ends - sizes) * self.dtype.itemsize, "<i8"),
                (np.arange(count + 1), "<i8"),
            ):
                file.write(array.astype(kind).tobytes())
            _sync_and_close(file)
        for suffix in (".bin", ".idx"):
            self._temporary[suffix].replace(self._paths[suffix])
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        for path in self._temporary.values():
            path.unlink(missing_ok=True)


def _sync_and_close(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
