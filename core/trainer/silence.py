"""The reporter of a rank that says nothing, since rank 0 speaks for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .evaluate import Evaluation
    from .snapshot import TrainerState
    from .step import StepResult


class Silence:
    """Takes what ``Reporter`` takes."""

    def step(self, state: TrainerState, result: StepResult, *, rate: float, seconds: float, flops: float) -> None:
        """Take no note of a step."""

    @contextmanager
    def evaluating(self, num_samples: int) -> Iterator[Callable[[int], None]]:
        """Show no bar."""
        yield lambda samples: None

    def evaluation(
        self, state: TrainerState, evaluation: Evaluation, seconds: float, answers: Mapping[str, float]
    ) -> None:
        """Log no evaluation."""

    def draw_if_old(self) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """Close nothing."""
