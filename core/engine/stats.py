"""How busy an engine is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StepCounts:
    """What has been computed since the start. A step that computes tokens of any prompt counts as one of prompts."""

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

    def add_step(self, seconds: float, computed: int, chosen: int, *, is_decoding: bool) -> None:
        """Count one step."""
        self.steps += 1
        if is_decoding:
            self.answer_step_tokens += chosen
            self.answer_step_seconds += seconds
        else:
            self.prompt_step_tokens += computed
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
