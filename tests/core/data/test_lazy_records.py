"""Records that stay in their files are those that are read at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.data.encoded_records import encode_files
from llm_run.core.data.encoding import Encoder
from llm_run.core.data.lazy_records import LazyRecords
from llm_run.core.data.sample import Sample
from llm_run.core.data.tokenizers import JsonTokenizer
from llm_run.core.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def encoder(bpe: JsonTokenizer) -> Encoder:
    return Encoder(bpe, None, 16, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files with blank lines, a mark at the start, an end without a line break."""
    lines = [json.dumps({"src": "the dog", "tgt": f"fox 人 {place}"}, ensure_ascii=False) for place in range(23)]
    (tmp_path / "a.jsonl").write_text("\ufeff\n\n" + "\n".join(lines[:9]) + "\n\n \n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\r\n\r\n".join(lines[9:]), encoding="utf-8")
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [folder / "a.jsonl", folder / "b.jsonl"]


def fields(sample: Sample) -> list[list[Any]]:
    return [getattr(sample, name).tolist() for name in ("ids", "labels", "segments", "prefix")]


def test_records_are_those_of_reading_all_at_once_in_any_order(folder: Path, encoder: Encoder) -> None:
    lazy = LazyRecords(files(folder), encoder, measures=True)
    whole = encode_files(files(folder), encoder)
    assert lazy.count == whole.count == 23
    assert lazy.lengths() == whole.lengths()
    for record in (22, 0, 9, 8, 22, *range(23)):
        assert [fields(one) for one in lazy.samples(record)] == [fields(one) for one in whole.samples(record)]


def test_a_record_is_encoded_when_it_is_asked_for_and_not_before(
    folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = LazyRecords(files(folder), encoder)
    asked: list[Any] = []
    real = Encoder.encode_record
    monkeypatch.setattr(Encoder, "encode_record", lambda self, fields: asked.append(fields) or real(self, fields))
    lazy.samples(17)
    assert [one["tgt"] for one in asked] == ["fox 人 17"]


def test_the_digest_follows_content_and_encoding(folder: Path, bpe: JsonTokenizer, encoder: Encoder) -> None:
    digests = [LazyRecords(files(folder), encoder).digest for _ in range(2)]
    digests.append(LazyRecords(files(folder), Encoder(bpe, None, 4, 5)).digest)
    with (folder / "b.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"src": "x", "tgt": "y"}))
    digests.append(LazyRecords(files(folder), encoder).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_bad_record_is_named_by_its_line_when_its_turn_comes(write_lines: Write, encoder: Encoder) -> None:
    good = [{"src": "a", "tgt": str(place)} for place in range(40)]
    lazy = LazyRecords([write_lines("a.jsonl", *good[:20], {"src": "no answer"}, *good[20:])], encoder)
    assert lazy.count == 41
    lazy.samples(19)
    with pytest.raises(DataError, match=r"a\.jsonl:21: 'tgt' is missing"):
        lazy.samples(20)


def test_bad_records_are_left_out_where_that_is_asked_for(
    write_lines: Write, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_lines("a.jsonl", "broken", {"src": "a", "tgt": "b"}, {"src": "no answer"}, {"src": "a", "tgt": "c"})
    with caplog.at_level(logging.INFO, "llm_run.data"):
        lazy = LazyRecords([path], encoder, policy="skip")
    assert lazy.count == 2
    assert fields(lazy.samples(1)[0]) == fields(encode_files([path], encoder, "skip").samples(1)[0])
    assert "a.jsonl:3: 'tgt' is missing" in caplog.text and "2 records were skipped" in caplog.text


def test_the_index_of_a_large_file_is_kept_and_read_again(
    write_lines: Write, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_run.core.data import index_cache, lazy_records

    monkeypatch.setattr(index_cache, "WORTH_KEEPING", 1)
    path = write_lines("a.jsonl", *[{"src": "a", "tgt": str(place)} for place in range(30)])
    first = LazyRecords([path], encoder, measures=True, cache_folder=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2
    monkeypatch.setattr(lazy_records, "_lines", lambda path: pytest.fail("the index was made again"))
    again = LazyRecords([path], encoder, measures=True, cache_folder=tmp_path / "cache")
    assert again.lengths() == first.lengths() and again.digest == first.digest
    assert np.array_equal(again.samples(29)[0].ids, first.samples(29)[0].ids)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '[{"src": "a", "tgt": "b"}]', "this is a JSON array"),
        ("a.jsonl.gz", "", "Unpack it"),
        ("a.jsonl", "\n \n", "no record is left to train on"),
    ],
)
def test_what_cannot_be_read_from_the_middle_is_refused(
    tmp_path: Path, encoder: Encoder, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        LazyRecords([tmp_path / name], encoder)
