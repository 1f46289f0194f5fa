"""What a task cannot do yet under a plan, though the model can be cut so. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Problem
from .degrees import STAGES, TENSOR

if TYPE_CHECKING:
    from ..run import RunConfig
    from .plan import ParallelPlan

STAGED = ("pretrain", "sft")
"""Tasks that train a model cut into stages: what stages send each other is enough for their loss."""


def check_limits(plan: ParallelPlan, config: RunConfig) -> Iterator[Problem]:
    """Yield what the task of a run has no way to do under its plan."""
    if plan.pp > 1 and config.task not in STAGED:
        reason = f"is for --task {' and '.join(STAGED)}, not for {config.task}"
        yield Problem(STAGES, str(plan.pp), reason, f"Use 1, or {TENSOR}.")
    if plan.mp * plan.pp > 1 and config.evaluation.eval_with_do_generation:
        reason = "needs the whole model on every rank, and each has a part"
        remedy = f"Leave it out, or use {TENSOR} 1 and {STAGES} 1."
        yield Problem("--eval_with_do_generation", "true", reason, remedy)
