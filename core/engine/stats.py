"""How busy an engine is."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class StepCounts:
    """What has been computed since the start. A step that computes tokens of any prompt counts as one of prompts.

    A token is counted, and the time up to it, before anybody is told of it.
    """

    steps: int = 0
    new_tokens: int = 0
    """Chosen, in steps of either kind."""
    prompt_step_tokens: int = 0
    """Computed in steps of prompts, those of answers beside them included."""
    prompt_step_seconds: float = 0.0
    answer_step_tokens: int = 0
    """Chosen in steps that computed answers only."""
    answer_step_seconds: float = 0.0
    guessed: int = 0
    """Tokens that were guessed ahead."""
    guessed_right: int = 0

    _clock: float = 0.0
    """Up to when time is counted, in seconds."""
    _is_decoding: bool = False
    """Of the step that is under way."""

    def begin_step(self) -> None:
        """Count time from now on."""
        self._clock = time.perf_counter()

    def add_step(self, computed: int, *, is_decoding: bool) -> None:
        """Count a step that is computed, and from which tokens will be chosen."""
        self.steps += 1
        self._is_decoding = is_decoding
        if not is_decoding:
            self.prompt_step_tokens += computed
        self._add_time()

    def add_token(self) -> None:
        """Count a token that is chosen."""
        self.new_tokens += 1
        if self._is_decoding:
            self.answer_step_tokens += 1
        self._add_time()

    def _add_time(self) -> None:
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        if self._is_decoding:
            self.answer_step_seconds += seconds
        else:
            self.prompt_step_seconds += seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Figures of one moment."""

    running: int
    waiting: int
    cache_usage: float
    """Share of the blocks that are owned, 0 to 1."""
    preemptions: int
    prefix_queries: int
    """Tokens looked up in the cache since the start."""
    prefix_hits: int
    """Tokens found there."""
    counts: StepCounts
