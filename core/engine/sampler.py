"""Draws the next token of one request, with random numbers of its own."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import default_rng  # loaded here: threads that load it at the same time trip over each other

from . import processors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .request import Request
    from .settings import SamplingSettings


class Sampler:
    """The state that one request's choice of tokens needs.

    What it draws depends on the request and its logits only: not on the batch, nor on when its mates finish.
    """

    def __init__(self, request: Request) -> None:
        self._settings = settings = request.settings
        self._random = default_rng([request.settings.seed, request.number])
        self._seen: set[int] = set(request.prompt)
        self._counts: Counter[int] = Counter()
        self._num_new = 0
        self._counts_matter = settings.presence_penalty != 0.0 or settings.frequency_penalty != 0.0
        is_plain = settings.repetition_penalty == 1.0 and not self._counts_matter and not settings.logit_bias
        self._is_argmax = settings.is_greedy and is_plain

    @property
    def wants_argmax(self) -> bool:
        """The likeliest token of the raw logits is the answer, so that the logits need not be looked at."""
        return self._is_argmax and self._num_new >= self._settings.min_new_tokens

    def pick(self, logits_V: np.ndarray) -> int:
        """Return the next token.

        Args:
            logits_V: float32; changed in place.
        """
        settings = self._settings
        if self._counts_matter:
            processors.penalize_counts(logits_V, self._counts, settings.presence_penalty, settings.frequency_penalty)
        if settings.logit_bias:
            processors.add_bias(logits_V, settings.logit_bias)
        logits_V = adjusted(logits_V, settings, self._seen, self._num_new)
        if self._settings.is_greedy:
            return int(logits_V.argmax())
        return self._draw(self._narrowed(logits_V))

    def accept(self, token: int) -> None:
        """Take note of the token that the request goes on with."""
        self._num_new += 1
        if self._counts_matter:
            self._counts[token] += 1
        if self._settings.repetition_penalty != 1.0:
            self._seen.add(token)

    def _narrowed(self, logits_V: np.ndarray) -> np.ndarray:
        settings = self._settings
        logits_V /= np.float32(settings.temperature)
        if settings.top_k > 0:
            processors.keep_top_k(logits_V, settings.top_k)
        processors.keep_top_p(logits_V, settings.top_p)
        return processors.keep_min_p(logits_V, settings.min_p)

    def _draw(self, logits_V: np.ndarray) -> int:
        # Candidates stay in the order of their ids: two that are nearly equally likely would otherwise swap places
        # when a batch rounds differently, and the same random number would draw the other one.
        ids = (logits_V > -np.inf).nonzero()[0]
        kept = logits_V[ids]
        bounds = np.exp(kept.astype(np.float64) - float(kept.max())).cumsum()
        # Not np.searchsorted, which lets other threads have the interpreter: a few steps are not worth the wait for it.
        place = bisect_right(bounds, self._random.random() * bounds[-1])
        return int(ids[min(place, len(ids) - 1)])


def adjusted(scores_V: np.ndarray, settings: SamplingSettings, seen: Iterable[int], num_new: int) -> np.ndarray:
    """Apply what holds for every strategy: the shortest answer, then the repetition penalty.

    Args:
        scores_V: float32 logits (log-probabilities in beam search); changed in place.
        settings: of the request.
        seen: tokens of the prompt and of the answer so far.
        num_new: tokens of the answer so far.
    """
    if num_new < settings.min_new_tokens:
        processors.forbid(scores_V, settings.stop_ids)
    if settings.repetition_penalty != 1.0:
        known = np.fromiter({token for token in seen if token < len(scores_V)}, dtype=np.int64)
        processors.penalize_repetition(scores_V, known, settings.repetition_penalty)
    return scores_V
