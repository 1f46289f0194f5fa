"""Documents of a token file as samples of equal length, shuffled as Megatron's GPTDataset shuffles them.

The documents of an epoch, in a random order, form one stream; sample k is the tokens [k L, k L + L + 1) of it, so that
neighbours share one token and attention is not reset between documents. Then the samples are shuffled. The first
epoch is Megatron's own order. Further epochs Megatron shuffles together, except the last; here each is shuffled by
itself, because otherwise a sample's place would depend on how long the run is.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .order import generator
from .sample import Sample

if TYPE_CHECKING:
    from .index_cache import IndexCache
    from .token_file import TokenFile


@dataclass(frozen=True, slots=True)
class _Epoch:
    """The order of one pass over the documents."""

    documents: np.ndarray
    """int32 or int64 [documents]."""
    ends: np.ndarray
    """int64 [documents]: where each ends in the epoch's stream."""
    shuffle: np.ndarray
    """uint32 or int64 [samples]: which sample of the epoch comes when."""


class Corpus:
    """Samples of ``length`` tokens out of a range of a token file's documents (a ``SampleSource``)."""

    def __init__(
        self, file: TokenFile, documents: range, *, length: int, seed: int, file_hash: str, cache: IndexCache
    ) -> None:
        """Prepare the first epoch.

        Args:
            file: the corpus.
            documents: those that belong to this source; at least one sample's worth of tokens.
            length: of a sample, in tokens.
            seed: of the order.
            file_hash: of the files' content.
            cache: keeps the order of large corpora.

        Raises:
            DataError: the documents do not fill one sample.
        """
        self._file = file
        self._documents = documents
        self._length = length
        self._seed = seed
        self._cache = cache
        self._sizes = file.sizes[documents.start : documents.stop]
        self._tokens = int(self._sizes.sum())
        self.epoch_size = self._first_of_epoch(1)
        if self.epoch_size == 0:
            raise DataError(
                f"{file.prefix}: {len(documents)} documents with {self._tokens} tokens do not fill one sample "
                f"of {length} tokens. Use more data, another --split, or a smaller --max_length."
            )
        self._description = f"corpus {file_hash} {documents.start}:{documents.stop} length {length} seed {seed}"
        self.fingerprint = hashlib.sha256(self._description.encode()).hexdigest()
        self._epoch = functools.lru_cache(maxsize=3)(self._build_epoch)

    def prepare(self, num_samples: int) -> None:
        """Compute and keep the orders that the first ``num_samples`` need, before anybody waits for them."""
        for epoch in range(self._epoch_of(max(num_samples, 1) - 1) + 1):
            self._epoch(epoch)

    def sample(self, position: int) -> Sample:
        """Return the sample at a global position."""
        epoch = self._epoch_of(position)
        first = self._first_of_epoch(epoch)
        place = first + int(self._epoch(epoch).shuffle[position - first])
        tokens = self._read(place * self._length)
        size = self._length
        return Sample(tokens[:-1], tokens[1:], np.ones(size, dtype=np.int32), np.zeros(size, dtype=bool))

    def _first_of_epoch(self, epoch: int) -> int:
        """Return the position of an epoch's first sample: the one that ends in the epoch and may begin in the last."""
        return max(0, (epoch * self._tokens - 1) // self._length)

    def _epoch_of(self, position: int) -> int:
        """Return the epoch whose samples contain ``position``: the first e with position < first(e + 1)."""
        return -(-((position + 1) * self._length + 1) // self._tokens) - 1

    def _read(self, start: int) -> np.ndarray:
        """Return L + 1 tokens from ``start`` on, counted from the first epoch's first token."""
        epoch, start = divmod(start, self._tokens)
        order = self._epoch(epoch)
        at = int(np.searchsorted(order.ends, start, side="right"))
        offset = start - int(order.ends[at]) + int(self._sizes[order.documents[at]])
        parts, missing = [], self._length + 1
        while missing:
            if at == len(order.documents):
                epoch, at = epoch + 1, 0
                order = self._epoch(epoch)
            part = self._file.read(self._documents.start + int(order.documents[at]), offset, missing)
            parts.append(part)
            missing -= len(part)
            at, offset = at + 1, 0
        return np.concatenate(parts)

    def _build_epoch(self, epoch: int) -> _Epoch:
        first, stop = self._first_of_epoch(epoch), self._first_of_epoch(epoch + 1)
        count = len(self._documents)

        def build() -> dict[str, np.ndarray]:
            # Megatron seeds with the bare seed, and draws documents first and samples then.
            random = np.random.RandomState(self._seed % 2**32) if epoch == 0 else generator(self._seed, epoch)
            documents = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
            random.shuffle(documents)
            shuffle = np.arange(stop - first, dtype=np.uint32 if stop - first < 2**32 - 1 else np.int64)
            random.shuffle(shuffle)
            return {"documents": documents, "shuffle": shuffle}

        arrays = self._cache.get(f"{self._description} epoch {epoch}", count + stop - first, build)
        return _Epoch(arrays["documents"], np.cumsum(self._sizes[arrays["documents"]]), arrays["shuffle"])
