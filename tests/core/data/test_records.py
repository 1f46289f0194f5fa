"""Reading data files, and where a bad record is said to be."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_run.core.data.records import BadRecords, read_records
from llm_run.core.errors import DataError

Write = Callable[..., Path]


def test_lines_and_arrays_give_the_same_records_with_their_lines(tmp_path: Path, write_lines: Write) -> None:
    lines = write_lines("a.jsonl", {"n": 1}, "", {"n": 2})
    array = tmp_path / "a.json"
    array.write_text('\n[\n  {"n": 1},\n\n  {"n":\n 2}\n]\n')
    assert [(record.place, record.fields) for record in read_records(lines, BadRecords())] == [
        (f"{lines}:1", {"n": 1}),
        (f"{lines}:3", {"n": 2}),
    ]
    assert [(record.place, record.fields) for record in read_records(array, BadRecords())] == [
        (f"{array}:3", {"n": 1}),
        (f"{array}:5", {"n": 2}),
    ]


def test_packed_files_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"n": 1}\r\n{"n": 2}'))
    assert [record.fields["n"] for record in read_records(path, BadRecords())] == [1, 2]
    (tmp_path / "b.json").write_bytes(b'\xef\xbb\xbf[{"n": 3}]')
    assert [record.fields["n"] for record in read_records(tmp_path / "b.json", BadRecords())] == [3]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "{broken",
            r"a\.jsonl:2: is not a JSON object on one line: .*\(--on_bad_record skip leaves such records out\.\)",
        ),
        ("[1]", r"a\.jsonl:2: must be a JSON object, not a list\."),
        ("3", r"a\.jsonl:2: must be a JSON object, not a int\."),
        ("[" * 100_000, r"a\.jsonl:2: is not a JSON object on one line: "),
    ],
)
def test_a_bad_line_is_named_or_counted(write_lines: Write, line: str, said: str) -> None:
    path = write_lines("a.jsonl", {"n": 1}, line, {"n": 3})
    with pytest.raises(DataError, match=said):
        list(read_records(path, BadRecords("error")))
    bad = BadRecords("skip")
    assert [record.fields["n"] for record in read_records(path, bad)] == [1, 3]
    assert bad.count == 1 and "a.jsonl:2" in bad.messages[0]


def test_a_line_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: is not a JSON object on one line: 'utf-8' codec"):
        list(read_records(path, BadRecords()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[\n{"n": 1},\n{"n" 2}\n]', r"a\.json:3: the JSON array is malformed here: "),
        ('[\n{"n": 1}\n{"n": 2}\n]', r"a\.json:3: the JSON array ends too early, or a comma is missing\."),
        ('[\n{"n": 1}\n', r"a\.json:3: the JSON array ends too early"),
        ('[\n{"n": 1},\n7]', r"a\.json:3: must be a JSON object, not a int\."),
    ],
)
def test_a_malformed_array_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=said):
        list(read_records(tmp_path / "a.json", BadRecords()))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: cannot be read: No such file or directory\."):
        list(read_records(tmp_path / "gone.jsonl", BadRecords()))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"n": 1}\n' * 1000)[:30])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read to its end: "):
        list(read_records(tmp_path / "a.jsonl.gz", BadRecords()))


def test_many_bad_records_are_counted_and_the_first_ones_shown(write_lines: Write) -> None:
    bad = BadRecords("skip")
    list(read_records(write_lines("a.jsonl", *["x"] * 100), bad))
    assert (bad.count, len(bad.messages)) == (100, 3)
