"""Perplexity of running text, with a window that slides over each document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..data.documents import RECORD_SUFFIXES, find_text_files, read_documents
from ..data.records import BadRecords, open_data
from ..data.sample import IGNORED, Sample
from ..errors import DataError, Problem, RefusedError
from .likelihood import score_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ..causal_lm import CausalLM
    from ..data.tokenizer import Tokenizer


class TextPerplexity:
    """Loss of every token of some documents, each seen with at least ``length - stride`` tokens before it.

    A window begins with what the family puts at the start of a text (``<s>``), counted in its length. The first token
    of a document is not scored where the family puts nothing there.
    """

    name = "text"

    def __init__(self, documents: Sequence[str], tokenizer: Tokenizer, *, length: int, stride: int) -> None:
        """Cut the documents into windows.

        Args:
            documents: texts.
            tokenizer: the model's.
            length: of a window, in tokens.
            stride: tokens between the starts of two windows; the smaller, the more each token sees.

        Raises:
            RefusedError: windows would leave out tokens.
            DataError: there is no token to score.
        """
        room = length - len(tokenizer.prompt([]))
        if stride > room:
            reason = f"leaves out tokens: a window of max_length {length} has room for {room}"
            raise RefusedError(Problem("--stride", str(stride), reason, f"Give {room} or less."))
        self._tokenizer = tokenizer
        self._num_bytes = sum(len(text.encode()) for text in documents)
        self.samples = [
            sample for text in documents for sample in cut_windows(tokenizer, text, length=length, stride=stride)
        ]
        if not self.samples:
            raise DataError("--input_path: holds no text with two tokens or more.")

    @property
    def num_items(self) -> int:
        """Windows."""
        return len(self.samples)

    def run(self, model: CausalLM, *, batch_size: int, advance: Callable[[float], None]) -> dict[str, float]:
        """Return loss (nats a token), perplexity, token accuracy, and bits a byte, which no tokenizer changes."""
        found = score_samples(
            model, self.samples, batch_size=batch_size, pad_id=self._tokenizer.pad_id, advance=advance
        )  # fmt: skip
        loss_sum = -math.fsum(one.log_probability for one in found)
        num_tokens = sum(one.num_tokens for one in found)
        loss = loss_sum / num_tokens
        return {
            "loss": loss,
            "ppl": math.exp(min(loss, 700.0)),
            "accuracy": sum(one.num_correct for one in found) / num_tokens,
            "bits_per_byte": loss_sum / math.log(2) / self._num_bytes,
            "tokens": num_tokens,
        }


def cut_windows(tokenizer: Tokenizer, text: str, *, length: int, stride: int) -> Iterator[Sample]:
    """Yield the windows of one document; each token but perhaps the first is a label of exactly one of them."""
    frame, ids = tokenizer.prompt([]), tokenizer.encode(text)
    room = length - len(frame)
    scored = 0 if frame else 1
    for begin in range(0, len(ids), stride):
        end = min(begin + room, len(ids))
        if end > scored:
            tokens = np.array([*frame, *ids[begin:end]], dtype=np.int64)
            labels = np.full(len(tokens) - 1, IGNORED, dtype=np.int64)
            first = len(frame) + scored - begin
            labels[first - 1 :] = tokens[first:]
            size = len(labels)
            yield Sample(tokens[:-1], labels, np.ones(size, dtype=np.int32), np.arange(size) < len(frame))
            scored = end
        if end == len(ids):
            return


def read_texts(path: Path, key: str, bad: BadRecords) -> list[str]:
    """Return the documents to be scored: records of JSON files, and text files whole.

    Raises:
        DataError: there is none, a file cannot be read, or a record is malformed and ``bad`` says to stop.
    """
    texts: list[str] = []
    for file in find_text_files(path):
        if file.name.endswith(RECORD_SUFFIXES):
            texts += read_documents(file, key, bad, lambda _: None)
            continue
        with open_data(file) as stream:
            try:
                texts.append(stream.read().decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: is not UTF-8 text: {error}.") from error
    return texts
