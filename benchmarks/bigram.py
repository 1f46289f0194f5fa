"""A smoothed bigram model of token ids: what a language model must beat to have learnt more than word pairs."""

from __future__ import annotations

import numpy as np

DISCOUNT = 0.75
"""Absolute discount of Kneser-Ney, the usual value (Chen and Goodman 1998, section 2.7)."""


class BigramModel:
    """Interpolated Kneser-Ney bigrams over token ids.

    Source: Kneser and Ney 1995; Chen and Goodman 1998, eq. 2.28: p(w|v) = max(c(v,w) - D, 0) / c(v)
    + D * N(v,.) / c(v) * p(w), where p(w) counts in how many contexts w occurs, itself smoothed by one for all words.
    """

    def __init__(self, tokens: np.ndarray, vocab_size: int) -> None:
        pairs = tokens[:-1].astype(np.int64) * vocab_size + tokens[1:]
        self.vocab_size = vocab_size
        self.keys, self.counts = np.unique(pairs, return_counts=True)
        self.context_count = np.bincount(tokens[:-1], minlength=vocab_size)
        self.context_types = np.bincount(self.keys // vocab_size, minlength=vocab_size)
        continuations = np.bincount(self.keys % vocab_size, minlength=vocab_size) + 1.0
        self.unigram = continuations / continuations.sum()

    def loss(self, previous: np.ndarray, following: np.ndarray) -> float:
        """Return the mean negative log-likelihood, in nats, of ``following`` after ``previous``."""
        pairs = previous.astype(np.int64) * self.vocab_size + following
        found = np.minimum(np.searchsorted(self.keys, pairs), len(self.keys) - 1)
        count = np.where(self.keys[found] == pairs, self.counts[found], 0)
        context = self.context_count[previous]
        seen = np.maximum(context, 1)
        direct = np.maximum(count - DISCOUNT, 0) / seen
        back_off = np.where(context > 0, DISCOUNT * self.context_types[previous] / seen, 1.0)
        return float(-np.log(direct + back_off * self.unigram[following]).mean())
