"""What to do about steps whose loss or gradients are not finite."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .precision import LossScale
    from .step import StepResult

_log = logging.getLogger("llm_run.trainer")


class Guard:
    """Counts skipped steps, and stops training after ``limit`` in a row.

    A skipped step has used up its samples and its turn in the learning-rate schedule; nothing of it enters an
    average. An overflow under a loss scale that can still be lowered is how float16 works and does not count.
    """

    def __init__(self, limit: int, scale: LossScale, whereabouts: Callable[[], str], *, in_row: int = 0) -> None:
        self.limit = limit
        self.scale = scale
        self.whereabouts = whereabouts
        self.in_row = in_row

    def check(self, step: int, result: StepResult, samples: range) -> None:
        """Take note of the result of a step that consumed ``samples``.

        Raises:
            TrainingError: it was the ``limit``-th skipped step in a row.
        """
        if not result.fault:
            self.in_row = 0
            return
        said = f"step {step} (samples {samples[0]} to {samples[-1]}) is skipped: {result.fault}"
        if self.scale.overflowed():
            _log.warning("%s. The loss scale is lowered to %g", said, self.scale.value)
            return
        self.in_row += 1
        _log.warning("%s", said)
        if self.in_row >= self.limit:
            raise TrainingError(
                f"{said}. It is number {self.in_row} in a row (max_skipped_steps {self.limit}); the parameters are "
                f"those before the first of them. {self.whereabouts()} "
                "Try a lower learning_rate or a longer warm-up, or look at these samples."
            )
