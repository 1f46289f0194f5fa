"""How many requests are read at once: few, so that those who answer are not kept waiting by all who ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any

PLACES = 2
PAUSE_S = 0.001
"""Before each request that others wait behind: the one thread that receives for all connections gets on meanwhile.

It asks for the interpreter at each of them, and would otherwise get it as often as a request is done.
"""


class Desk:
    """Threads come with a request a few at once, and leave when it is handed over or refused.

    A hundred requests that arrive together would otherwise be read a little each in turn: none of them would be ready
    before nearly all are, and the engine would stand in line behind a hundred threads whenever it wants to go on.
    """

    def __init__(self, places: int = PLACES, *, pause_s: float = PAUSE_S) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        self._pause_s = pause_s
        self._mine = threading.local()
        for _ in range(places):
            self._free.put(None)

    def enter(self) -> None:
        """Wait for a place."""
        has_waited = self._free.empty()
        self._free.get()
        self._mine.has_place = True
        if has_waited:
            time.sleep(self._pause_s)

    def leave(self) -> None:
        """Give the thread's place to the next one; may be called again, and without a place."""
        if getattr(self._mine, "has_place", False):
            self._mine.has_place = False
            self._free.put(None)

    def before(self, application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return the WSGI application with the desk before it, for all that is sent and not only asked for."""

        def whole(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] == "GET":
                return application(environ, start_response)
            self.enter()
            try:
                return application(environ, start_response)
            finally:
                self.leave()

        return whole
