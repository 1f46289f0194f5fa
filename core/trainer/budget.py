"""How many steps a run has, and at which of them something is due."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .identity import global_batch_size

if TYPE_CHECKING:
    from ..config.training import TrainingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Steps of a run. Step k (from 1) consumes the samples ``[(k - 1) * batch_size, k * batch_size)``."""

    batch_size: int
    """Samples of one step, over all micro-batches of all ranks."""
    total_steps: int
    epoch_size: int

    @classmethod
    def from_options(cls, options: TrainingOptions, epoch_size: int, data_world: int = 1) -> Budget:
        """``max_steps``, or the steps that ``num_train_epochs`` take; the last one may run into the next epoch."""
        batch_size = global_batch_size(options, data_world)
        steps = options.max_steps
        if steps <= 0:
            steps = max(1, math.ceil(options.num_train_epochs * epoch_size / batch_size))
        return cls(batch_size=batch_size, total_steps=steps, epoch_size=epoch_size)

    def epoch(self, step: int) -> float:
        """Return the passes over the data after ``step`` steps."""
        return step * self.batch_size / self.epoch_size

    def is_due(self, strategy: str, interval: int, step: int) -> bool:
        """Whether something with ``strategy`` no, steps or epoch happens after ``step`` steps."""
        if strategy == "epoch":
            return int(self.epoch(step)) > int(self.epoch(step - 1))
        return strategy == "steps" and step % interval == 0
