"""Why the engine does not answer."""

from __future__ import annotations

from ..errors import LlmRunError


class QueueFullError(LlmRunError):
    """As many requests wait as may wait."""


class EngineDeadError(LlmRunError):
    """The engine's loop has failed, or was stopped before the answer was whole."""
