"""Records that stay in their files: an index says where each begins, and it is encoded when it is asked for."""

from __future__ import annotations

import array
import functools
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import DataError
from .encoding import to_sample
from .index_cache import IndexCache, fingerprint_file
from .progress import progress
from .records import BadRecords, parse_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .encoding import Encoded, RecordEncoder
    from .sample import Sample

logger = logging.getLogger("llm_run.data")
PROBES = 16
"""Records that are encoded to tell one encoding (tokenizer, template, lengths) from another."""
MARK = b"\xef\xbb\xbf"
"""Of UTF-8, at the start of some files."""
KEPT = 256
"""Records that stay encoded, for rows and pairs that are asked for several times."""


@dataclass(frozen=True, slots=True)
class _Index:
    offsets: np.ndarray
    """int64 [lines]: where each line that is not blank begins in its file."""
    first_of_file: np.ndarray
    """int64 [files + 1]: lines before each file's first one."""


class LazyRecords:
    """JSONL files of any size (a ``RecordStore``); memory holds 8 bytes a record, or 20 where all were looked at."""

    def __init__(
        self,
        files: Sequence[Path],
        encoder: RecordEncoder,
        *,
        policy: Literal["error", "skip"] = "error",
        measures: bool = False,
        cache_folder: Path | None = None,
        shown: bool = False,
    ) -> None:
        """Index the files; the index of large ones is kept on disk.

        Args:
            files: JSONL, not compressed.
            encoder: makes tokens of a record.
            policy: what a malformed record does. ``error`` may be found late, when its turn comes; for ``skip`` all
                records are looked at now.
            measures: encode every record once now, for its length.
            cache_folder: of the index; by default ``index-cache`` beside the first file.
            shown: show a progress bar.

        Raises:
            DataError: a file cannot be read or is no JSONL, or no record is left.
        """
        self._files, self._encoder, self._policy = list(files), encoder, policy
        self._handles = [_open(path) for path in files]
        self._cache = IndexCache(cache_folder or files[0].parent / "index-cache")
        self._size = sum(path.stat().st_size for path in files)
        content = " ".join(fingerprint_file(path) for path in files)
        self._index = self._find_lines(content, shown)
        if not len(self._index.offsets):
            raise DataError(f"{', '.join(map(str, files))}: no record is left to train on.")
        self._encoded = functools.lru_cache(maxsize=KEPT)(self._encode)
        self._good: np.ndarray | None = None
        self._lengths: np.ndarray | None = None
        self.digest = hashlib.sha256(f"lazy {content} {policy} {self._probe()}".encode()).hexdigest()
        if measures or policy == "skip":
            self._look_at_all(shown)
        logger.info("%s: %d records, encoded as their turn comes", ", ".join(map(str, files)), self.count)

    @property
    def count(self) -> int:
        return len(self._index.offsets if self._good is None else self._good)

    def samples(self, record: int) -> list[Sample]:
        encoded = self._encoded(record if self._good is None else int(self._good[record]))
        return [to_sample(np.array(one.ids), np.array(one.supervised)) for one in encoded]

    def lengths(self) -> list[int]:
        assert self._lengths is not None, "measures=True asks for them"
        return [int(length) for length in self._lengths]

    def _find_lines(self, content: str, shown: bool) -> _Index:
        def build() -> dict[str, np.ndarray]:
            offsets, first_of_file = array.array("q"), [0]
            with progress("indexing records", self._size, shown=shown) as advance:
                for path in self._files:
                    for offset, line in _lines(path):
                        advance(len(line))
                        if (line.removeprefix(MARK) if offset == 0 else line).strip():
                            offsets.append(offset)
                    first_of_file.append(len(offsets))
            return {"offsets": np.frombuffer(offsets, dtype=np.int64), "first_of_file": np.array(first_of_file)}

        return _Index(**self._cache.get(f"records of {content}", self._size >> 8, build))

    def _look_at_all(self, shown: bool) -> None:
        def build() -> dict[str, np.ndarray]:
            lengths, good, bad = array.array("q"), array.array("q"), BadRecords(self._policy)
            with progress("measuring records", len(self._index.offsets), shown=shown) as advance:
                for line in range(len(self._index.offsets)):
                    advance(1)
                    try:
                        encoded = self._encode(line)
                    except DataError as error:
                        bad.handle(error)
                        continue
                    good.append(line)
                    lengths.append(sum(len(one.ids) - 1 for one in encoded))
            for message in bad.messages:
                logger.warning("skipped: %s", message)
            return {"good": np.frombuffer(good, dtype=np.int64), "lengths": np.frombuffer(lengths, dtype=np.int64)}

        found = self._cache.get(f"lengths of {self.digest}", len(self._index.offsets) << 4, build)
        self._good, self._lengths = found["good"], found["lengths"]
        if not len(self._good):
            raise DataError(f"{', '.join(map(str, self._files))}: no record is left to train on.")
        logger.info("lazy: %d records were skipped", len(self._index.offsets) - len(self._good))

    def _encode(self, line: int) -> list[Encoded]:
        file = int(np.searchsorted(self._index.first_of_file, line, side="right")) - 1
        start = int(self._index.offsets[line])
        is_last = line + 1 == self._index.first_of_file[file + 1]
        end = os.fstat(self._handles[file]).st_size if is_last else int(self._index.offsets[line + 1])
        text = os.pread(self._handles[file], end - start, start)
        bad = BadRecords("skip")
        try:
            record = parse_record(text.removeprefix(MARK).strip(), "", bad)
            if record is None:
                raise DataError(bad.messages[0].removeprefix(": "))
            return self._encoder.encode_record(record.fields)
        except DataError as error:
            place = f"{self._files[file]}:{_line_number(self._files[file], start)}"
            hint = " (--on_bad_record skip leaves such records out.)" if self._policy == "error" else ""
            raise DataError(f"{place}: {error}{hint}") from error

    def _probe(self) -> str:
        """Return a hash of what some records become."""
        digest = hashlib.sha256()
        for line in np.unique(np.linspace(0, len(self._index.offsets) - 1, PROBES).astype(np.int64)):
            try:
                encoded = self._encode(int(line))
            except DataError:
                if self._policy == "error":
                    raise
                continue
            digest.update(repr([(one.ids, one.supervised) for one in encoded]).encode())
        return digest.hexdigest()


def _open(path: Path) -> int:
    if path.suffix == ".gz":
        raise DataError(f"{path}: --lazy reads records from the middle of a file, which .gz does not allow. Unpack it.")
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset, has_begun = 0, False
    with path.open("rb") as file:
        for line in file:
            if not has_begun and (text := line.removeprefix(MARK).strip()):
                has_begun = True
                if text.startswith(b"["):
                    raise DataError(f"{path}: --lazy reads JSONL, one record a line, and this is a JSON array.")
            yield offset, line
            offset += len(line)


def _line_number(path: Path, offset: int) -> int:
    """Return the line that begins at a byte; only messages ask for it."""
    number = 1
    with path.open("rb") as file:
        while offset > 0:
            block = file.read(min(offset, 1 << 20))
            number += block.count(b"\n")
            offset -= len(block)
    return number
