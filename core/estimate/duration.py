"""How long a run will take, from the operations it needs and the speed of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..launch.framework import import_paddle
from ..ops.select import choices
from ..parallel.plan import ParallelPlan
from ..run import Run
from .parameters import ParameterCount

SHARE = {"native": 0.6, "plain": 0.25}
"""Share of the matrix-product speed that training reaches, by the variant of most operators (measured on a 34M
model, batch 4 x 512, 2 cores)."""
SIZE, REPEATS = 1024, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """An estimate, good for planning: within a factor of two."""

    flops_per_step: float
    flops_per_second: float
    """Measured on a square matrix product."""
    share: float

    @property
    def seconds_per_step(self) -> float:
        """Seconds of one optimizer step."""
        return self.flops_per_step / (self.flops_per_second * self.share)


def estimate_step(run: Run, count: ParameterCount, plan: ParallelPlan) -> Duration:
    """Return the time of one optimizer step on each rank; measures the machine for a moment.

    Ranks that share matrices, layers or rows share their work evenly; that they wait for each other is left out.
    Operations are 6 N for each token, 12 L N D S for attention, and a third more with recomputation.

    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B.
    """
    training, model, length = run.config.training, run.model_config, run.config.data.max_length
    each = 4.0 if count.is_frozen else 6.0  # a frozen matrix has no gradient of its own
    per_token = each * count.multiplied + 12.0 * model.num_layers * model.num_heads * model.head_dim * length
    if training.recompute:
        per_token *= 4 / 3
    variants = [choice.variant for choice in choices()]
    share = SHARE["native"] if variants.count("native") > len(variants) / 2 else SHARE["plain"]
    shared = plan.mp * plan.pp * plan.sep
    tokens = tokens_per_step(run) / shared
    return Duration(flops_per_step=per_token * tokens, flops_per_second=_measure(), share=share)


def tokens_per_step(run: Run) -> int:
    """Return the tokens of one optimizer step, padding included, of the ranks that see the same samples."""
    training = run.config.training
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return rows * run.config.data.max_length


def _measure() -> float:
    """Return the FLOP/s of the best of a few square matrix products."""
    paddle = import_paddle()
    matrix = paddle.ones([SIZE, SIZE])
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        paddle.matmul(matrix, matrix).numpy()
        best = min(best, time.perf_counter() - start)
    return 2.0 * SIZE**3 / best
