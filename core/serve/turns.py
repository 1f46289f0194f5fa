"""Who of many waiting threads goes on first: a few are woken, and each wakes another before it does anything else.

The engine brings tokens for all streams at the same moment. If all of their threads woke at once, each would stand in
line for the interpreter several times, and so would the engine and a probe of the server's health, behind all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue

AT_ONCE = 4
"""Measured with 128 streams on 2 cores: with 1 the line is slow, with 16 and more the wait for the interpreter is."""
PATIENCE_S = 0.02
"""How long the engine may be kept from its next step by those who have not taken what the last one brought."""


class Turns:
    """Wakes those that wait, a few at once, in the order of their calls."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._lock = threading.Lock()
        self._line: deque[Waiter] = deque()
        self._at_once = at_once
        self._woken: set[Waiter] = set()
        self._is_awaited = False
        self._all_done: SimpleQueue[None] = SimpleQueue()

    def call(self, waiter: Waiter) -> None:
        """Let somebody go on: at its turn if it waits, else as soon as it would wait. Twice is once."""
        with self._lock:
            is_new, waiter.is_called = not waiter.is_called, True
            if waiter.is_waiting and is_new:
                self._line.append(waiter)
                self._wake()

    def enter(self, waiter: Waiter) -> bool:
        """Begin to wait; false if there is no need to, since it is called already."""
        with self._lock:
            waiter.is_waiting = not waiter.is_called
            waiter.is_called = False
            return waiter.is_waiting

    def leave(self, waiter: Waiter) -> bool:
        """Wait no more, and wake another if it was this one's turn; return whether it was called."""
        with self._lock:
            was_called = waiter.is_called
            waiter.is_called = waiter.is_waiting = False
            if waiter in self._woken:
                self._woken.remove(waiter)
                self._wake()
            return was_called

    def await_all(self, seconds: float = PATIENCE_S) -> None:
        """Wait until everybody who was called has gone on, at most for so long; one thread only."""
        with self._lock:
            if not self._woken:
                return
            self._is_awaited = True
        try:
            self._all_done.get(timeout=seconds)
        except Empty:
            with self._lock:
                if not self._is_awaited:
                    self._all_done.get()  # it came just now
                self._is_awaited = False

    def _wake(self) -> None:
        while self._line and len(self._woken) < self._at_once:
            first = self._line.popleft()
            if first.is_waiting and first.is_called and first not in self._woken:  # else it has left since
                self._woken.add(first)
                first.bell.put(None)
        if self._is_awaited and not self._woken:
            self._is_awaited = False
            self._all_done.put(None)


class Waiter:
    """A thread that waits for something again and again."""

    def __init__(self, turns: Turns) -> None:
        self.bell: SimpleQueue[None] = SimpleQueue()
        self.is_called = self.is_waiting = False
        """For ``Turns`` only."""
        self._turns = turns

    def call(self) -> None:
        """Say that it has come, from any thread."""
        self._turns.call(self)

    def wait(self, seconds: float) -> bool:
        """Wait until it has come since the last time; false if it does not for so long."""
        if not self._turns.enter(self):
            return True
        try:
            self.bell.get(timeout=seconds)
        except Empty:
            was_called = self._turns.leave(self)
            if not self.bell.empty():
                self.bell.get()  # it rang just now
            return was_called
        self._turns.leave(self)
        return True
