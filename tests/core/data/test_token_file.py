"""Token files against the ones that PaddleNLP wrote (tests/golden/make_token_files.py)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.data.token_file import find_prefixes, open_token_file
from llm_run.core.data.token_writer import TokenFileWriter
from llm_run.core.errors import DataError


@pytest.fixture
def golden(project: Path, tmp_path: Path) -> Path:
    """A copy of PaddleNLP's files that a test may damage."""
    folder = tmp_path / "golden"
    shutil.copytree(project / "tests/golden/token_files", folder)
    return folder


def drawn_documents() -> list[np.ndarray]:
    """The corpus that the golden files hold."""
    random = np.random.RandomState(0)
    return [random.randint(0, 60000, size=random.randint(1, 60)) for _ in range(40)]


@pytest.mark.parametrize("layout", ["mmap", "lazy", "legacy"])
def test_each_layout_that_paddlenlp_writes_is_read(golden: Path, layout: str) -> None:
    file = open_token_file(golden / layout)
    documents = drawn_documents()
    assert file.sizes.tolist() == [len(document) for document in documents]
    for place, document in enumerate(documents):
        assert file.read(place, 0, len(document)).tolist() == document.tolist()
    assert file.read(3, 2, 5).tolist() == documents[3][2:7].tolist()


def test_the_writer_makes_paddlenlps_bytes(golden: Path, tmp_path: Path) -> None:
    documents = drawn_documents()
    with TokenFileWriter(tmp_path / "out" / "mine", vocab_size=60000) as writer:
        for document in documents:
            writer.add(document, np.array([len(document)]))
        writer.finish()
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"out/mine{suffix}").read_bytes() == (golden / f"mmap{suffix}").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.bin", "mine.idx"]


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path: Path) -> None:
    with TokenFileWriter(tmp_path / "big", vocab_size=65535) as writer:
        writer.add(np.array([65534, 1]), np.array([2]))
        writer.finish()
    assert open_token_file(tmp_path / "big").read(0, 0, 9).tolist() == [65534, 1]
    assert (tmp_path / "big.bin").stat().st_size == 8


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), TokenFileWriter(tmp_path / "half", vocab_size=9) as writer:
        writer.add(np.array([1]), np.array([1]))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_prefixes_of_a_folder_are_found_by_name(golden: Path) -> None:
    assert [prefix.name for prefix in find_prefixes(golden)] == ["lazy", "legacy", "mmap"]


@pytest.mark.parametrize("name", ["mmap.idx", "mmap.bin", "lazy.idx", "lazy.bin", "legacy_ids.npy", "legacy_idx.npz"])
def test_every_truncation_is_named(golden: Path, name: str) -> None:
    content = (golden / name).read_bytes()
    for size in range(0, len(content) - 1, 61):
        (golden / name).write_bytes(content[:size])
        with pytest.raises(DataError, match=name.split(".")[0].split("_")[0]):
            open_token_file(golden / name.split(".")[0].split("_")[0])


def test_a_pickle_in_an_array_file_is_not_run(golden: Path) -> None:
    np.save(golden / "legacy_ids.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"legacy_ids\.npy cannot be read: "):
        open_token_file(golden / "legacy")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing known", r"mmap\.idx: is not the index of a token file \(it begins with b'nothing k'\)\."),
        (
            b"MMIDIDX\x00\x00" + (2).to_bytes(8, "little") + bytes(17),
            r"mmap\.idx: version 2 of the layout is not known",
        ),
        (
            b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + b"\x07" + bytes(16),
            r"dtype code 7 is not an integer type\.",
        ),
    ],
)
def test_an_index_of_another_kind_is_named(golden: Path, content: bytes, said: str) -> None:
    (golden / "mmap.idx").write_bytes(content)
    with pytest.raises(DataError, match=said):
        open_token_file(golden / "mmap")


def test_an_index_of_another_corpus_is_refused(golden: Path) -> None:
    (golden / "mmap.bin").write_bytes(bytes(20))
    with pytest.raises(DataError, match=r"its index speaks of more tokens than its data holds \(10\)"):
        open_token_file(golden / "mmap")


def test_a_missing_token_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere: is no token file: neither nowhere\.idx nor nowhere_idx\.npz can be read"
    ):
        open_token_file(tmp_path / "nowhere")
