"""Several corpora in one order, by weight."""

from __future__ import annotations

import array
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .corpus import Corpus
    from .sample import Sample


class Blend:
    """Samples of several corpora: at every position that one whose share lags most (a ``SampleSource``).

    Source: Megatron-LM, ``build_blending_indices``: the choice at position i is the corpus with the largest
    weight * max(i, 1) - samples taken from it so far, the first one where several are equal.
    """

    def __init__(self, corpora: Sequence[Corpus], weights: Sequence[float]) -> None:
        """Take corpora with positive weights, which are shares after division by their sum."""
        total = sum(weights)
        self._corpora = corpora
        self._weights = [weight / total for weight in weights]
        self._chosen = array.array("H")
        self._taken = array.array("q")
        self._counts = [0] * len(corpora)
        self.epoch_size = sum(corpus.epoch_size for corpus in corpora)
        parts = [f"{weight!r} {corpus.fingerprint}" for weight, corpus in zip(self._weights, corpora, strict=True)]
        self.fingerprint = hashlib.sha256(f"blend {' '.join(parts)}".encode()).hexdigest()

    def prepare(self, num_samples: int) -> None:
        """Decide the first ``num_samples`` positions, and prepare the corpora for them."""
        self._extend(num_samples)
        for corpus, count in zip(self._corpora, self._counts, strict=True):
            corpus.prepare(count)

    def sample(self, position: int) -> Sample:
        """Return the sample at a global position."""
        if position >= len(self._chosen):
            self._extend(max(position + 1, 2 * len(self._chosen)))
        return self._corpora[self._chosen[position]].sample(self._taken[position])

    def _extend(self, size: int) -> None:
        weights, counts = self._weights, self._counts
        corpora = range(len(weights))
        for place in range(len(self._chosen), size):
            scale = max(place, 1)
            chosen = max(corpora, key=lambda corpus: weights[corpus] * scale - counts[corpus])
            self._chosen.append(chosen)
            self._taken.append(counts[chosen])
            counts[chosen] += 1
