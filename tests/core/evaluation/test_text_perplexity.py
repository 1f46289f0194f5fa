"""Perplexity of text with a sliding window, against transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.data.records import BadRecords
from llm_run.core.data.sample import IGNORED
from llm_run.core.errors import DataError, RefusedError
from llm_run.core.evaluation.text_perplexity import TextPerplexity, cut_windows, read_texts

DOCUMENTS = ["7 and 8 make 15, less -1, times 56. " * 6, "naïve 中文", "12 and 3 make 15."]


def by_transformers(peers: Any, text: str, length: int, stride: int) -> tuple[float, int]:
    """The loop of transformers' guide to the perplexity of models with a fixed length, each window beginning with
    <s>: loss sum and tokens."""
    ids = peers.tokenizer.encode(text)
    loss, count, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length - 1, len(ids))
        found = peers.log_probabilities([peers.tokenizer.bos_id, *ids[begin:end]])
        new = end - previous
        loss, count, previous = loss - found[-new:].sum(), count + new, end
        if end == len(ids):
            break
    return loss, count


@pytest.mark.parametrize(("length", "stride"), [(256, 128), (20, 19), (20, 7), (9, 1)])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_loss_and_perplexity_are_those_of_transformers(peers: Any, length: int, stride: int, batch_size: int) -> None:
    assert peers.tokenizer.prompt([]) == [peers.tokenizer.bos_id]
    measure = TextPerplexity(DOCUMENTS, peers.tokenizer, length=length, stride=stride)
    found = measure.run(peers.model, batch_size=batch_size, advance=lambda _: None)
    sums = [by_transformers(peers, text, length, stride) for text in DOCUMENTS]
    loss, count = sum(one[0] for one in sums), sum(one[1] for one in sums)
    assert found["tokens"] == count == sum(len(peers.tokenizer.encode(text)) for text in DOCUMENTS)
    assert found["loss"] == pytest.approx(loss / count, rel=1e-5)
    assert found["ppl"] == pytest.approx(math.exp(loss / count), rel=1e-4)
    num_bytes = sum(len(text.encode()) for text in DOCUMENTS)
    assert found["bits_per_byte"] == pytest.approx(loss / math.log(2) / num_bytes, rel=1e-5)


class NoStart:
    """A tokenizer of bytes that puts nothing at the start of a text."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def prompt(self, ids: list[int]) -> list[int]:
        return ids


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_each_token_but_the_first_is_scored_once_and_sees_enough(stride: int) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"
    labels: list[int] = []
    for sample in cut_windows(NoStart(), text, length=6, stride=stride):  # type: ignore[arg-type]
        asked = np.flatnonzero(sample.labels != IGNORED)
        assert len(sample.ids) < 6
        assert not labels or asked[0] >= 6 - 1 - stride
        labels += sample.labels[asked].tolist()
    assert bytes(labels).decode() == text[1:]


def test_text_files_are_whole_and_records_are_single_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"text": "four"}\n')
    assert read_texts(tmp_path, "text", BadRecords()) == ["one\n\ntwo\n", "three", "four"]
    (tmp_path / "c.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"c\.txt: is not UTF-8"):
        read_texts(tmp_path, "text", BadRecords())


def test_a_stride_that_leaves_out_tokens_is_refused(peers: Any) -> None:
    with pytest.raises(RefusedError, match="--stride: 20 leaves out tokens: a window of max_length 20 has room for 19"):
        TextPerplexity(DOCUMENTS, peers.tokenizer, length=20, stride=20)


def test_text_without_a_token_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="two tokens or more"):
        TextPerplexity(["a"], NoStart(), length=6, stride=3)  # type: ignore[arg-type]
