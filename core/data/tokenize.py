"""Documents to tokens, in several processes that keep the documents' order."""

from __future__ import annotations

import collections
import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .tokenizer import Tokenizer

CHUNK_CHARS = 1 << 18
"""Text that a process gets at once."""

Tokens = tuple[np.ndarray, np.ndarray]
"""int32 ids of documents end to end, and int32 lengths."""

_worker: Tokenizer | None = None


def tokenize(
    documents: Iterable[str], make_tokenizer: Callable[[], Tokenizer], *, append_eos: bool, workers: int
) -> Iterator[Tokens]:
    """Yield the tokens of documents, in their order, a chunk at a time.

    Args:
        documents: texts, none empty.
        make_tokenizer: loads the tokenizer; must be picklable, because every process calls it.
        append_eos: end every document with the end-of-text token.
        workers: processes beside this one; 1 does the work here.

    Raises:
        DataError: a process died (most often of too little memory).
    """
    chunks = _chunks(documents)
    if workers == 1:
        tokenizer = make_tokenizer()
        for chunk in chunks:
            yield _encode(tokenizer, chunk, append_eos)
        return
    # Started fresh instead of forked: a fork of a process with threads (progress bar, Paddle) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(make_tokenizer,)) as pool:
        waiting: collections.deque[Future[Tokens]] = collections.deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_work, chunk, append_eos))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a tokenizing process died, most often of too little memory. Try fewer --workers."
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _start(make_tokenizer: Callable[[], Tokenizer]) -> None:
    global _worker
    _worker = make_tokenizer()


def _work(documents: list[str], append_eos: bool) -> Tokens:
    assert _worker is not None
    return _encode(_worker, documents, append_eos)


def _encode(tokenizer: Tokenizer, documents: list[str], append_eos: bool) -> Tokens:
    end = [tokenizer.eos_id] if append_eos and tokenizer.eos_id is not None else []
    rows = [[*tokenizer.encode(document), *end] for document in documents]
    sizes = np.array([len(row) for row in rows], dtype=np.int32)
    return np.array([token for row in rows for token in row], dtype=np.int32), sizes
