"""Beam search: the likeliest whole answers, by keeping several unfinished ones side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import paddle

from .request import Completion
from .runner import BatchRunner
from .sampler import adjusted
from .stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..causal_lm import CausalLM
    from ..data.tokenizer import Tokenizer
    from .request import FinishReason, Request
    from .runner import BatchModel


def beam_search(
    model: CausalLM | BatchModel, requests: Sequence[Request], *, tokenizer: Tokenizer | None = None
) -> list[Completion]:
    """Answer ``requests`` by beam search, all as one batch.

    Each step scores every continuation of every running beam by its summed log-probability. Among the best
    ``num_beams``, those that end are finished, with their score divided by length ** length_penalty; the best
    ``num_beams`` that do not end run on. A search is over when no running beam can beat the worst finished one, judged
    by its present length, or when ``max_new_tokens`` are reached.

    Raises:
        RefusedError: a prompt is empty or leaves no room in the model's positions.
        LlmRunError: the model's logits are not finite.
    """
    if not requests:
        return []
    searches = [_Search(request, request.room(model.config)) for request in requests]
    runner = BatchRunner(
        model, [request.prompt for request in requests], reserve=max(search.room for search in searches)
    )
    logits_BV = runner.prefill()
    running = searches
    while running:
        vocab_size = logits_BV.shape[1] if tokenizer is None else min(tokenizer.vocab_size, logits_BV.shape[1])
        log_probs_BV = paddle.nn.functional.log_softmax(logits_BV, axis=-1).numpy()[:, :vocab_size]
        first_row, rows, tokens = 0, [], []
        for search in running:
            last_row = first_row + len(search.beams)
            rows += [first_row + parent for parent in search.advance(log_probs_BV[first_row:last_row])]
            tokens += [beam.ids[-1] for beam in search.beams]
            first_row = last_row
        running = [search for search in running if search.beams]
        if running:
            runner.select(rows)
            logits_BV = runner.step(tokens)
    return [search.completion(tokenizer) for search in searches]


@dataclass(slots=True)
class _Beam:
    ids: list[int] = field(default_factory=list)
    score: float = 0.0


class _Search:
    """The beams of one request."""

    def __init__(self, request: Request, room: int) -> None:
        self.room = room
        self.beams = [_Beam()]
        """Running beams, best first; empty when the search is over."""
        self._request = request
        self._finished: list[_Beam] = []
        self._stop_ids = frozenset(request.settings.stop_ids)

    def advance(self, log_probs_RV: np.ndarray) -> list[int]:
        """Extend the running beams by one token.

        Args:
            log_probs_RV: float32, of the next token of each of the R running beams.

        Returns:
            For each new running beam the number of the one that it extends.
        """
        settings = self._request.settings
        length = len(self.beams[0].ids) + 1
        finished: list[_Beam] = []
        running: list[_Beam] = []
        parents: list[int] = []
        for place, (parent, token, score) in enumerate(self._candidates(log_probs_RV)):
            ids = [*self.beams[parent].ids, token]
            if token in self._stop_ids or length == self.room:
                if place < settings.num_beams:
                    finished.append(_Beam(ids, score / length**settings.length_penalty))
            elif len(running) < settings.num_beams:
                running.append(_Beam(ids, score))
                parents.append(parent)
        self._finished = sorted(self._finished + finished, key=lambda beam: -beam.score)[: settings.num_beams]
        if not self._can_improve(running, length):
            running, parents = [], []
        self.beams = running
        return parents

    def completion(self, tokenizer: Tokenizer | None) -> Completion:
        """Return the best finished beam."""
        best = self._finished[0]
        is_stop = best.ids[-1] in self._stop_ids
        text = TextStream(tokenizer, self._request.settings.stop)
        shown = "".join(map(text.push, best.ids[:-1] if is_stop else best.ids)) + text.finish()
        reason: FinishReason = "stop" if is_stop or text.is_stopped else "length"
        return Completion(len(self._request.prompt), best.ids, shown, reason)

    def _candidates(self, log_probs_RV: np.ndarray) -> list[tuple[int, int, float]]:
        """Return the best (beam, token, score), best first: enough for num_beams to run on if all others end."""
        V = log_probs_RV.shape[1]
        total = np.empty_like(log_probs_RV)
        for row, beam in enumerate(self.beams):
            seen = chain(self._request.prompt, beam.ids)
            scores_V = adjusted(log_probs_RV[row].copy(), self._request.settings, seen, len(beam.ids))
            total[row] = scores_V + np.float32(beam.score)
        flat = total.reshape(-1)
        count = min(max(2, 1 + len(self._stop_ids)) * self._request.settings.num_beams, len(flat))
        best = np.argpartition(flat, -count)[-count:]
        best = best[np.lexsort((best, -flat[best]))]
        return [(int(place) // V, int(place) % V, float(flat[place])) for place in best]

    def _can_improve(self, running: Sequence[_Beam], length: int) -> bool:
        settings = self._request.settings
        if not running or len(self._finished) < settings.num_beams:
            return bool(running)
        if settings.early_stopping:
            return False
        best_possible: float = running[0].score / length**settings.length_penalty
        return best_possible > self._finished[-1].score
