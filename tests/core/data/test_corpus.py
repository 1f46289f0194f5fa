"""The order of samples against PaddleNLP's GPTDataset, and its own promises."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.data import index_cache
from llm_run.core.data.corpus import Corpus
from llm_run.core.data.index_cache import IndexCache
from llm_run.core.data.split import split_documents
from llm_run.core.data.token_file import TokenFile, open_token_file
from llm_run.core.errors import DataError


@pytest.fixture(scope="module")
def expected(project: Path) -> Any:
    """What PaddleNLP read from the golden corpus."""
    return json.loads((project / "tests/golden/token_files/expected.json").read_text())


def in_memory(sizes: list[int]) -> TokenFile:
    """A corpus whose tokens count from 0 on."""
    lengths = np.array(sizes, dtype=np.int64)
    return TokenFile(Path("memory"), np.arange(lengths.sum(), dtype=np.int32), np.cumsum(lengths) - lengths, lengths)


def make(file: TokenFile, folder: Path, *, length: int = 8, seed: int = 3, documents: range | None = None) -> Corpus:
    """A corpus over all documents."""
    documents = range(len(file.sizes)) if documents is None else documents
    return Corpus(file, documents, length=length, seed=seed, file_hash="h", cache=IndexCache(folder))


@pytest.mark.parametrize(("name", "part"), [("train", 0), ("valid", 1)])
def test_the_first_epoch_is_paddlenlps(project: Path, tmp_path: Path, expected: Any, name: str, part: int) -> None:
    file = open_token_file(project / "tests/golden/token_files/mmap")
    documents = split_documents(expected["split"], len(file.sizes))[part]
    corpus = make(file, tmp_path, length=expected["sequence"], seed=expected["seed"], documents=documents)
    wanted = expected["samples"][name]
    assert corpus.epoch_size == len(wanted)
    for position, tokens in enumerate(wanted):
        sample = corpus.sample(position)
        assert sample.ids.tolist() == tokens[:-1]
        assert sample.labels.tolist() == tokens[1:]


def test_splits_are_paddlenlps(expected: Any) -> None:
    for case, bounds in expected["splits"].items():
        split, _, size = case.partition(" of ")
        parts = split_documents(split, int(size))
        if all(start <= stop for start, stop in itertools.pairwise(bounds)) and min(bounds) >= 0:
            assert [(part.start, part.stop) for part in parts] == list(itertools.pairwise(bounds)), case


def test_every_epoch_reads_every_token_once_but_for_its_ends(tmp_path: Path) -> None:
    corpus = make(in_memory([5, 1, 30, 0, 17, 44, 3]), tmp_path)
    read = np.concatenate([corpus.sample(position).ids for position in range(1000)])
    counts = np.bincount(read, minlength=100)
    assert counts.max() - counts.min() <= 2
    assert counts.min() >= 1000 * 8 // 100 - 1


def test_neighbouring_samples_of_the_stream_share_one_token(tmp_path: Path) -> None:
    corpus = make(in_memory([100]), tmp_path)
    samples = sorted((corpus.sample(position) for position in range(12)), key=lambda sample: int(sample.ids[0]))
    for one, following in itertools.pairwise(samples):
        assert one.labels[-1] == following.ids[0]


def test_the_order_does_not_depend_on_how_much_is_prepared_or_asked_before(tmp_path: Path) -> None:
    file = in_memory([5, 9, 30, 2, 17, 44, 3, 80])
    one, other = make(file, tmp_path), make(file, tmp_path)
    one.prepare(2000)
    for position in (1999, 0, 77, 1500, 3):
        assert one.sample(position).ids.tolist() == other.sample(position).ids.tolist()


def test_epochs_and_seeds_have_orders_of_their_own(tmp_path: Path) -> None:
    file = in_memory([40] * 30)
    corpus, other = make(file, tmp_path), make(file, tmp_path, seed=4)
    size = corpus.epoch_size
    first = [int(corpus.sample(position).ids[0]) for position in range(size)]
    second = [int(corpus.sample(position).ids[0]) for position in range(size, 2 * size)]
    assert first != second
    assert first != [int(other.sample(position).ids[0]) for position in range(size)]
    assert corpus.fingerprint != other.fingerprint


def test_a_corpus_shorter_than_a_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"memory: 2 documents with 8 tokens do not fill one sample of 8 tokens\."):
        make(in_memory([4, 4]), tmp_path)
    assert make(in_memory([4, 5]), tmp_path).epoch_size == 1


def test_a_kept_order_is_read_again_and_a_damaged_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_cache, "WORTH_KEEPING", 0)
    file = in_memory([40] * 30)
    order = [int(make(file, tmp_path).sample(position).ids[0]) for position in range(20)]
    (kept,) = tmp_path.glob("*.npz")
    content = kept.read_bytes()
    for place in range(0, len(content), 97):
        kept.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        assert [int(make(file, tmp_path).sample(position).ids[0]) for position in range(20)] == order
    assert "is damaged and is made anew" in caplog.text
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_cache, "WORTH_KEEPING", 0)
    (tmp_path / "taken").write_text("a file, not a folder")
    corpus = make(in_memory([40] * 30), tmp_path / "taken")
    assert corpus.sample(0).ids.shape == (8,)
    assert "the sample index is not kept" in caplog.text
