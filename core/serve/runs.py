"""The answers of one request on their way: events of all as they come, and who gave up why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import LlmRunError
from .turns import Waiter

if TYPE_CHECKING:
    from ..engine.handle import Handle
    from ..engine.request import TokenEvent
    from .metrics import Metrics
    from .replies import Usage
    from .turns import Turns

PING_S = 10.0
"""Silence after which a stream is told that the server is still there."""


class Runs:
    """The answers of one request on their way."""

    def __init__(self, prompts: list[list[int]], metrics: Metrics, turns: Turns, *, deadline: float) -> None:
        self.prompts = prompts
        self.handles: list[Handle] = []
        self._metrics, self._turns = metrics, turns
        self._deadline = deadline
        self._start = time.monotonic()
        self._reason = "gone"

    def events(self, poll_s: float = PING_S) -> Iterator[tuple[int, TokenEvent | None]]:
        """Yield tokens by the number of their answer, and ``None`` after each ``poll_s`` without any.

        Raises:
            EngineDeadError: the engine died; what came before stands.
        """
        waiter = Waiter(self._turns)
        for handle in self.handles:
            handle.notify(waiter.call)
        waiting = set(range(len(self.handles)))
        last = [self._start] * len(self.handles)
        while waiting:
            if not waiter.wait(min(poll_s, max(0.001, self._deadline - time.monotonic()))):
                if time.monotonic() >= self._deadline:
                    self.give_up("deadline")
                    raise LlmRunError("the answer took longer than this server allows")
                yield 0, None
            for index in sorted(waiting):
                for event in self.handles[index].take():
                    self._measure(event, index, last)
                    yield index, event
                    if event.finish_reason is not None:
                        waiting.discard(index)

    def counted(self, usage: Usage) -> Usage:
        """Complete the usage."""
        usage.completion_tokens = sum(handle.num_generated for handle in self.handles)
        usage.cached_tokens = sum(handle.num_cached for handle in self.handles)
        return usage

    def give_up(self, reason: str) -> None:
        """Cancel what is not finished, and say why in the metrics."""
        self._reason = reason
        self.close()

    def close(self) -> None:
        """Cancel what is not finished; the engine frees it within a step."""
        open_ones = [handle for handle in self.handles if not handle.is_finished]
        for handle in open_ones:
            handle.cancel()
        if open_ones:
            self._metrics.aborted.labels(reason=self._reason).inc(len(open_ones))

    def _measure(self, event: TokenEvent, index: int, last: list[float]) -> None:
        now, metrics, handle = time.monotonic(), self._metrics, self.handles[index]
        if last[index] == self._start:
            metrics.first_token.observe(now - self._start)
            metrics.prompt_tokens.inc(handle.num_prompt)
            metrics.per_prompt.observe(handle.num_prompt)
        else:
            metrics.between_tokens.observe(now - last[index])
        last[index] = now
        metrics.generation_tokens.inc()
        if event.finish_reason is not None:
            metrics.success.labels(finished_reason=event.finish_reason).inc()
            metrics.whole.observe(now - self._start)
            metrics.per_answer.observe(handle.num_generated)
