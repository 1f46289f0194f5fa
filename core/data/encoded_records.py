"""Records of files as tokens: where samples are taken from, and all of them encoded in memory."""

from __future__ import annotations

import array
import hashlib
import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from ..errors import DataError
from .encoding import to_sample
from .progress import progress
from .records import BadRecords, read_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .encoding import RecordEncoder
    from .sample import Sample

logger = logging.getLogger("llm_run.data")


class RecordStore(Protocol):
    """The records of a data set, each one sample, or as many as the task makes of it."""

    @property
    def digest(self) -> str:
        """Hash that changes when the records or their encoding change."""

    @property
    def count(self) -> int:
        """Records, malformed ones not counted."""

    def samples(self, record: int) -> list[Sample]:
        """Return the samples of one record, with shifted labels."""

    def lengths(self) -> list[int]:
        """Return the tokens of each record, all its samples together."""


@dataclass(frozen=True, slots=True)
class EncodedRecords:
    """All records of a data set, end to end (a ``RecordStore``)."""

    ids: np.ndarray
    """int32."""
    supervised: np.ndarray
    """bool, as long as ``ids``."""
    starts: np.ndarray
    """int64 [samples + 1]."""
    group_size: int
    """Samples of one record."""

    @property
    def digest(self) -> str:
        """Hash of all tokens."""
        digest = hashlib.sha256()
        for part in (self.ids, self.supervised, self.starts):
            digest.update(part.tobytes())
        return digest.hexdigest()

    @property
    def count(self) -> int:
        return (len(self.starts) - 1) // self.group_size

    def samples(self, record: int) -> list[Sample]:
        bounds = self.starts[record * self.group_size : (record + 1) * self.group_size + 1]
        parts = [slice(*pair) for pair in pairwise(bounds)]
        return [to_sample(self.ids[part], self.supervised[part]) for part in parts]

    def lengths(self) -> list[int]:
        # Shifting the labels takes one token off each sample.
        return [int(size) - self.group_size for size in np.diff(self.starts[:: self.group_size])]


def encode_files(
    files: Sequence[Path], encoder: RecordEncoder, policy: Literal["error", "skip"] = "error", shown: bool = False
) -> EncodedRecords:
    """Encode all records of ``files``, in their order, and say what came of them.

    Raises:
        DataError: a record is malformed and ``policy`` is ``error``, or no record is left.
    """
    ids, supervised, starts = array.array("i"), bytearray(), array.array("q", [0])
    bad = BadRecords(policy)
    cut = 0
    title = f"reading {files[0].name}" + (" ..." if len(files) > 1 else "")
    with progress(title, None, shown=shown) as advance:
        for path in files:
            for record in read_records(path, bad):
                advance(1)
                try:
                    samples = encoder.encode_record(record.fields)
                except DataError as error:
                    bad.handle(DataError(f"{record.place}: {error}"))
                    continue
                cut += any(encoded.cut for encoded in samples)
                for encoded in samples:
                    ids.extend(encoded.ids)
                    supervised.extend(encoded.supervised)
                    starts.append(len(ids))
    names = ", ".join(map(str, files))
    if len(starts) == 1:
        raise DataError(f"{names}: no record is left to train on. {' '.join(bad.messages)}".rstrip())
    records = EncodedRecords(
        np.frombuffer(ids, dtype=np.int32), np.frombuffer(supervised, dtype=bool),
        np.frombuffer(starts, dtype=np.int64), encoder.group_size,
    )  # fmt: skip
    _report(records, names, cut, bad)
    return records


def _report(records: EncodedRecords, names: str, cut: int, bad: BadRecords) -> None:
    logger.info(
        "%s: %d records, %d tokens, %.1f %% of them learnt, the longest has %d; %d lost a part, %d were skipped",
        names,
        records.count,
        len(records.ids),
        100 * records.supervised.mean(),
        int(np.diff(records.starts).max()),
        cut,
        bad.count,
    )
    for message in bad.messages:
        logger.warning("skipped: %s", message)
