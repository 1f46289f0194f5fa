"""What the engine asks to compute a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .scheduler import Work


class StepRunner(ABC):
    """Computes what the scheduler has planned. All calls come from one thread at a time."""

    patience_s: float | None = None
    """Seconds that may pass without a call; ``None`` for as many as there are."""

    @abstractmethod
    def run(self, works: Several[Work]) -> list[np.ndarray]:
        """Compute the tokens of each piece of work.

        Returns:
            Float32 logits [V] of the last ``num_results`` tokens of each, one behind the other; the next call may write
            over them.
        """

    def rest(self) -> None:  # noqa: B027 - nothing to do for a runner that is alone
        """Take note that there is nothing to compute; called where nothing else was for ``patience_s``."""

    def close(self) -> None:  # noqa: B027 - as above
        """Take note that nothing more will be computed; may be called again."""
