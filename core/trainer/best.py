"""Which evaluation was the best so far, and when to stop because none gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from ..config.training import TrainingOptions
    from .snapshot import TrainerState

SMALLER_IS_BETTER = ("loss", "ppl")
"""Ends of the names of figures that training makes smaller."""


class BestModel:
    """Compares evaluations; what it knows is in the ``TrainerState``, so that a resumed run goes on with it."""

    def __init__(self, options: TrainingOptions) -> None:
        """Read which figure counts."""
        self.metric = f"eval_{options.metric_for_best_model.removeprefix('eval_')}"
        is_said = options.greater_is_better is not None
        self._greater = options.greater_is_better if is_said else not self.metric.endswith(SMALLER_IS_BETTER)
        self._patience = options.early_stopping_patience

    def after(self, state: TrainerState, figures: Mapping[str, float]) -> TrainerState:
        """Return the state after an evaluation with these figures.

        Raises:
            RefusedError: the figure that counts is not among them.
        """
        if self.metric not in figures:
            known = ", ".join(name.removeprefix("eval_") for name in figures)
            said = self.metric.removeprefix("eval_")
            raise RefusedError(Problem("--metric_for_best_model", said, "is not measured", f"Measured are {known}."))
        value = figures[self.metric]
        if not self._is_better(value, state.best_value):
            return replace(state, evaluated_step=state.step, evaluations_since_best=state.evaluations_since_best + 1)
        return replace(
            state, evaluated_step=state.step, evaluations_since_best=0, best_step=state.step, best_value=value
        )

    def is_exhausted(self, state: TrainerState) -> bool:
        """Whether so many evaluations in a row were no better than the best one that training stops."""
        return self._patience is not None and state.evaluations_since_best >= self._patience

    def _is_better(self, value: float, best: float | None) -> bool:
        if not math.isfinite(value):
            return False
        return best is None or (value > best if self._greater else value < best)
