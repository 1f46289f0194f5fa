"""SIGTERM and SIGINT as a wish that the loop reads at step boundaries."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from ..parallel.mesh import Mesh

_log = logging.getLogger("llm_run.trainer")


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is noted; later ones change nothing.

    The handler does nothing but set a field: whoever leaves from inside a handler loses the checkpoint and may leave
    other ranks waiting in a collective.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def is_agreed(self, mesh: Mesh) -> bool:
        """Return whether a signal has come to any rank; every rank must ask, and all get the same answer.

        Raises:
            DistributedError: a rank has gone or is late.
        """
        number = mesh.agree_max(int(self.signal or 0), "a look at signals")
        if number and self.signal is None:
            self.signal = signal.Signals(number)
        return number > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)

    @property
    def exit_status(self) -> int:
        """143 after SIGTERM, 130 after SIGINT, 0 without a signal."""
        return 0 if self.signal is None else 128 + int(self.signal)
