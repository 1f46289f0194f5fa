"""How fast answers came: tokens a second, and how long one waited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .handle import Handle
    from .stats import EngineStats


@dataclass(slots=True)
class AnswerTimes:
    """Seconds of each answer, from its sending on."""

    first_token: list[float] = field(default_factory=list)
    between_tokens: list[float] = field(default_factory=list)
    """Mean of each answer of two tokens or more."""
    whole: list[float] = field(default_factory=list)

    def add(self, handle: Handle) -> None:
        """Take note of an answer that has ended."""
        if handle.first_token is None or handle.ended is None:
            return
        self.first_token.append(handle.first_token - handle.arrived)
        self.whole.append(handle.ended - handle.arrived)
        if handle.num_generated > 1:
            self.between_tokens.append((handle.ended - handle.first_token) / (handle.num_generated - 1))

    def lines(self, stats: EngineStats, peak_bytes: int) -> Iterator[str]:
        """Yield what a user is told."""
        counts = stats.counts
        told = []
        for what, tokens, seconds in (
            ("prompts", counts.prompt_step_tokens, counts.prompt_step_seconds),
            ("answers", counts.answer_step_tokens, counts.answer_step_seconds),
        ):
            if seconds > 0:
                told.append(f"{what}: {tokens / seconds:.1f} tokens/s")
        if stats.prefix_hits:
            told.append(f"tokens of prompts found in the cache: {stats.prefix_hits}")
        if counts.guessed:
            told.append(f"guesses that were right: {counts.guessed_right} of {counts.guessed}")
        yield "; ".join([*told, f"peak memory: {peak_bytes / 1e9:.2f} GB"])
        named = (("first token", self.first_token), ("between tokens", self.between_tokens), ("whole", self.whole))
        shares = "; ".join(f"{name} {_percentiles(seconds)}" for name, seconds in named if seconds)
        if shares:
            yield f"seconds at 50, 90 and 99 %: {shares}"


def _percentiles(seconds: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in np.percentile(seconds, (50, 90, 99)))
