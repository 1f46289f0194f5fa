"""Records of JSONL files and JSON arrays, each with the place it came from."""

from __future__ import annotations

import gzip
import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOWN = 3
"""Skipped records whose message is kept."""
BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object of a data file."""

    place: str
    """``file:line``, for messages."""
    fields: dict[str, Any]


@dataclass(slots=True)
class BadRecords:
    """What becomes of malformed records: the first one stops the run, or they are counted and left out."""

    policy: Literal["error", "skip"] = "error"
    count: int = 0
    messages: list[str] = field(default_factory=list)
    """Of the first few."""

    def handle(self, error: DataError) -> None:
        """Raise ``error``, or count it.

        Raises:
            DataError: the policy is ``error``.
        """
        if self.policy == "error":
            raise DataError(f"{error} (--on_bad_record skip leaves such records out.)") from error
        self.count += 1
        if len(self.messages) < SHOWN:
            self.messages.append(str(error))


def open_data(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open a data file for reading, unpacking ``.gz``.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a data file, with their ends.

    Raises:
        DataError: it cannot be read to its end.
    """
    with open_data(path) as file:
        try:
            yield from file
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read to its end: {error}.") from error


def read_records(path: Path, bad: BadRecords) -> Iterator[Record]:
    """Yield the objects of a JSONL file or of a JSON array, in their order.

    Raises:
        DataError: the file cannot be read; or a record is malformed and ``bad`` says to stop.
    """
    for line in read_lines(path):
        text = line.lstrip(b"\xef\xbb\xbf \t\r\n")
        if text.startswith(b"["):
            yield from _read_array(path, bad)
            return
        if text:
            break
    for number, line in enumerate(read_lines(path), start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            record = parse_record(line, f"{path}:{number}", bad)
            if record is not None:
                yield record


def parse_record(line: bytes, place: str, bad: BadRecords) -> Record | None:
    """Return the JSON object of one line; ``None``: it is malformed and was counted.

    Raises:
        DataError: it is malformed and ``bad`` says to stop.
    """
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        bad.handle(DataError(f"{place}: is not a JSON object on one line: {error}."))
        return None
    return _object(value, place, bad)


def _object(value: Any, place: str, bad: BadRecords) -> Record | None:
    if isinstance(value, dict):
        return Record(place, value)
    bad.handle(DataError(f"{place}: must be a JSON object, not a {type(value).__name__}."))
    return None


def _read_array(path: Path, bad: BadRecords) -> Iterator[Record]:
    """Yield the objects of a JSON array, each with the line it begins on."""
    try:
        text = b"".join(read_lines(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text: {error}.") from error
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    at = _skip(text, _skip(text, 0) + 1)
    while not text.startswith("]", at):
        line, counted = line + text.count("\n", counted, at), at
        place = f"{path}:{line}"
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: the JSON array is malformed here: {error}.") from error
        record = _object(value, place, bad)
        if record is not None:
            yield record
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            line += text.count("\n", counted, at)
            raise DataError(f"{path}:{line}: the JSON array ends too early, or a comma is missing.")


def _skip(text: str, at: int) -> int:
    match = BLANK.match(text, at)
    return match.end() if match is not None else at
