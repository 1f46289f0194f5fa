"""Raw text corpora: JSONL records and plain text, as documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DataError
from .records import read_lines, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .records import BadRecords

RECORD_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
TEXT_SUFFIXES = (".txt", ".md", ".txt.gz")


def find_text_files(path: Path) -> list[Path]:
    """Return the file, or all text and JSONL files below the folder, by name.

    Raises:
        DataError: there is none.
    """
    if not path.exists():
        raise DataError(f"--input_path: {path} does not exist.")
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.name.endswith(RECORD_SUFFIXES + TEXT_SUFFIXES))
    if not files:
        raise DataError(f"--input_path: {path} holds no text. Looked for {', '.join(RECORD_SUFFIXES + TEXT_SUFFIXES)}.")
    return files


def read_documents(path: Path, key: str, bad: BadRecords, advance: Callable[[float], None]) -> Iterator[str]:
    """Yield the documents of one file, without white space around them; empty ones are left out.

    A record of a JSON or JSONL file is a document; in other files an empty line ends one, and lines that end as on
    Windows get the end that they have elsewhere.

    Args:
        path: the file.
        key: of the text in a record.
        bad: what becomes of malformed records.
        advance: is told the size of every document in bytes.

    Raises:
        DataError: the file cannot be read, or a record is malformed and ``bad`` says to stop.
    """
    if not path.name.endswith(RECORD_SUFFIXES):
        yield from _read_paragraphs(path, bad, advance)
        return
    for record in read_records(path, bad):
        text = record.fields.get(key)
        if not isinstance(text, str):
            found = f"not a {type(text).__name__}" if key in record.fields else f"and it has {sorted(record.fields)}"
            bad.handle(DataError(f"{record.place}: expected text under {key!r} (--json_key), {found}."))
            continue
        content = _encodable(text, record.place, bad)
        advance(len(content))
        if stripped := text.strip():
            if content:
                yield stripped


def _read_paragraphs(path: Path, bad: BadRecords, advance: Callable[[float], None]) -> Iterator[str]:
    lines: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        advance(len(line))
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            bad.handle(DataError(f"{path}:{number}: is not UTF-8 text: {error}."))
            continue
        if text.strip():
            lines.append(f"{text[:-2]}\n" if text.endswith("\r\n") else text)
        elif lines:
            yield "".join(lines).strip()
            lines = []
    if lines:
        yield "".join(lines).strip()


def _encodable(text: str, place: str, bad: BadRecords) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        bad.handle(DataError(f"{place}: holds half of a surrogate pair at character {error.start}, which is no text."))
        return b""
