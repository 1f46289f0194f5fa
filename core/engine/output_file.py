"""The output of ``--task generate``: written line by line, and taken up again where an earlier run stopped."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, Problem, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import BinaryIO, Self

    from .prompts import PromptRecord

ADDED = ("output", "finish_reason")
"""Keys of a line that are not the record's."""
LONGEST_DIFFERENCE = 160
"""Characters; of two templates or lists of files only the name is shown."""


class OutputFile:
    """JSONL of the records with ``tgt``, ``output`` and ``finish_reason``, in the order of the data file.

    Beside it stands ``<name>.run.json`` with everything that decides the answers; a run goes on with a file only if
    all of that is the same.
    """

    def __init__(self, path: Path, records: Sequence[PromptRecord], origin: Mapping[str, Any]) -> None:
        """Open ``path`` and find out what is done.

        Args:
            path: the JSONL file; made if there is none.
            records: all that are to be answered.
            origin: what decides the answers, as JSON values by name.

        Raises:
            RefusedError: the file belongs to another run, to other data, or is being written by another process.
            DataError: it cannot be written.
        """
        self._path = path
        self._records = records
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Append mode creates the file, and truncates nothing before the lock is held.
            self._file: BinaryIO = path.open("ab")
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}. Check --output_file.") from error
        try:
            self._lock()
            self._check_origin(Path(f"{path}.run.json"), json.loads(json.dumps(origin)))
            self.num_done = self._count_done()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, answers: Sequence[tuple[str, str]]) -> None:
        """Write the (output, finish reason) of the next records; they are on their way to the disk on return."""
        for record, (output, reason) in zip(self._records[self.num_done :], answers, strict=False):
            line = {**record.fields, "tgt": record.target, "output": output, "finish_reason": reason}
            self._file.write(_encoded(line) + b"\n")
            self.num_done += 1
        self._file.flush()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RefusedError(
                self._problem("is being written by another process", "Wait for it, or choose another file.")
            ) from error

    def _check_origin(self, path: Path, origin: dict[str, Any]) -> None:
        remedy = "Remove it, or choose another file."
        if self._file.tell() == 0:
            temporary = path.with_name(f"{path.name}.tmp")
            temporary.write_text(json.dumps(origin, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, path)
            return
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = f"holds something, and no {path.name} says which run wrote it"
            raise RefusedError(self._problem(reason, remedy)) from error
        differing = [key for key in origin if earlier.get(key) != origin[key]]
        if differing:
            said = ", ".join(_difference(key, earlier.get(key), origin[key]) for key in differing)
            raise RefusedError(self._problem(f"was begun by a run with other settings: {said}", remedy))

    def _count_done(self) -> int:
        """Check the lines that are there against the records, and cut off a last line that was not finished."""
        lines = self._path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            self._file.truncate(sum(map(len, lines[:-1])))
            lines.pop()
        for number, line in enumerate(lines, start=1):
            record = self._records[number - 1] if number <= len(self._records) else None
            if record is None or not _answers(line, record):
                reason = f"was written for other data: line {number} does not belong to that record of --data_file"
                raise RefusedError(self._problem(reason, "Remove it, or choose another file."))
        return len(lines)

    def _problem(self, reason: str, remedy: str) -> Problem:
        return Problem("--output_file", str(self._path), reason, remedy)


def _encoded(fields: dict[str, Any]) -> bytes:
    try:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only write as an escape
        return json.dumps(fields).encode("ascii")


def _difference(key: str, earlier: Any, now: Any) -> str:
    said = f"{key} was {earlier!r} and is {now!r}"
    return said if len(said) <= LONGEST_DIFFERENCE else f"{key} differs"


def _answers(line: bytes, record: PromptRecord) -> bool:
    try:
        fields = json.loads(line)
    except ValueError:
        return False
    if not isinstance(fields, dict) or not isinstance(fields.get("output"), str):
        return False
    asked = {**record.fields, "tgt": record.target}
    return all(fields.get(key) == value for key, value in asked.items() if key not in ADDED)
