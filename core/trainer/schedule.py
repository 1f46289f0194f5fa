"""The learning rate as a pure function of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config.training import TrainingOptions

_log = logging.getLogger("llm_run.trainer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up, then the chosen shape.

    Source: for ``min_rate`` 0 the shapes are those of ``transformers.get_scheduler``; ``min_rate`` and
    ``decay_steps`` are those of PaddleNLP's pretraining schedules.
    """

    kind: str
    peak: float
    total_steps: int
    warmup_steps: int = 0
    decay_steps: int | None = None
    min_rate: float = 0.0
    num_cycles: float = 0.5
    lr_end: float = 1e-7
    power: float = 1.0

    @classmethod
    def from_options(cls, options: TrainingOptions, total_steps: int) -> Schedule:
        """Resolve ``warmup_ratio`` and the default of ``decay_steps``, as the seed's toolchain does."""
        ratio_steps = math.ceil(options.warmup_ratio * total_steps)
        warmup_steps = options.warmup_steps if options.warmup_steps > 0 else ratio_steps
        if warmup_steps >= total_steps and options.lr_scheduler_type != "constant":
            message = "warm-up takes %d steps of %d: the learning rate never reaches %g. Lower --warmup_steps"
            _log.warning(message, warmup_steps, total_steps, options.learning_rate)
        return cls(
            kind=options.lr_scheduler_type,
            peak=options.learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            decay_steps=options.decay_steps,
            min_rate=options.min_learning_rate,
            num_cycles=options.num_cycles,
            lr_end=options.lr_end,
            power=options.power,
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of the optimizer step that follows ``step`` finished ones (0 for the first)."""
        if self.kind == "constant":
            return self.peak
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        if self.kind == "constant_with_warmup":
            return self.peak
        end = self.total_steps if self.decay_steps is None else self.decay_steps
        if self.kind == "polynomial":
            return self._polynomial(step, end)
        if step > end:
            return self.min_rate
        done = (step - self.warmup_steps) / max(1, end - self.warmup_steps)
        if self.kind == "cosine":
            left = 0.5 * (1.0 + math.cos(2.0 * math.pi * self.num_cycles * done))
        else:
            left = 1.0 - done
        return self.min_rate + (self.peak - self.min_rate) * left

    def _polynomial(self, step: int, end: int) -> float:
        if step > end:
            return self.lr_end
        left = 1.0 - (step - self.warmup_steps) / max(1, end - self.warmup_steps)
        return self.lr_end + (self.peak - self.lr_end) * float(left**self.power)
