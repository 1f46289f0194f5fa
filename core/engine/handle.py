"""The end of a request that its sender holds: events come out, cancelling goes in. Safe from any thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..errors import LlmRunError
    from .request import TokenEvent, TokenLogprob


class Handle:
    """One request on its way through the engine.

    There is no lock: only the engine's thread writes, and what the others take from is a deque, whose ``append`` and
    ``popleft`` are whole.
    """

    def __init__(self, num_prompt: int) -> None:
        self.num_prompt = num_prompt
        self.num_cached = 0
        """Tokens of the prompt that were found in the cache."""
        self.num_generated = 0
        self.prompt_logprobs: list[TokenLogprob | None] = []
        """One a token of the prompt, ``None`` for the first; complete with the first event, where asked for."""
        self.is_cancelled = False
        self.is_finished = False
        self.arrived = time.perf_counter()
        """Seconds, as ``time.perf_counter`` counts."""
        self.first_token: float | None = None
        self.ended: float | None = None
        self._events: deque[TokenEvent] = deque()
        self._failure: LlmRunError | None = None
        self._notify: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Ask the engine to forget the request; it does before its next step."""
        self.is_cancelled = True

    def notify(self, act: Callable[[], None]) -> None:
        """Call ``act`` whenever there is something to take, from the engine's thread; now if there is already."""
        self._notify = act
        self.wake()

    def take(self) -> list[TokenEvent]:
        """Return what has come, without waiting; one thread at a time.

        Raises:
            LlmRunError: the request has failed; what came before it was returned.
        """
        failure = self._failure  # first: what came before it is among the events then
        events = [self._events.popleft() for _ in range(len(self._events))]
        if failure is None:
            return events
        if not events:
            raise failure
        self.wake()
        return events

    def __iter__(self) -> Iterator[TokenEvent]:
        """Yield the events as they come, to the last one.

        Raises:
            LlmRunError: the request has failed.
        """
        arrived: SimpleQueue[None] = SimpleQueue()
        self.notify(partial(arrived.put, None))
        while True:
            arrived.get()
            for event in self.take():
                yield event
                if event.finish_reason is not None:
                    return

    def put(self, event: TokenEvent) -> None:
        """Lay an event down to be taken; the engine's thread only, which calls ``wake`` later."""
        self.num_generated += 1
        self.ended = time.perf_counter()
        self.first_token = self.first_token or self.ended
        self._events.append(event)
        self.is_finished = event.finish_reason is not None

    def wake(self) -> None:
        """Tell whom it concerns, if there is something to take."""
        notify = self._notify
        if notify is not None and (self._events or self._failure is not None):
            notify()

    def fail(self, failure: LlmRunError) -> None:
        """End the request with an error; the engine's thread only."""
        if not self.is_finished:
            self.is_finished = True
            self._failure = failure
            self.wake()
