"""Model FLOPs utilisation: the share of this device's matrix-product speed that training makes use of."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

import paddle

from .precision import on_gpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..registry.facts import ModelConfig
    from .precision import Dtype

GEMM_SIZE = {"cpu": 1024, "gpu": 8192}
GEMM_RUNS = 6


class ModelFlops:
    """Floating-point operations that training needs, ``6 N + 12 L N_heads D S`` for a token in a row of S.

    N counts the matrices that a token is multiplied with (all but the input embedding, the output head included); a
    frozen one has no gradient of its own, and counts with 4 instead of 6.
    Recomputation and the causal half of attention are not deducted, so that figures compare with those of other
    toolchains.

    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B.
    """

    def __init__(self, matrices: Mapping[str, tuple[int, bool]], config: ModelConfig) -> None:
        """Take the entries of each matrix of the model, and whether it is trained, by name."""
        embedding = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
        frozen = sum(size for size, is_trained in matrices.values() if not is_trained)
        whole = sum(size for size, _ in matrices.values())
        each = 4.0 if frozen else 6.0  # of the embedding, which is frozen where anything is
        self._dense = 6.0 * whole - 2.0 * frozen - each * embedding
        self._attention = 12.0 * config.num_layers * config.num_heads * config.head_dim

    def of_batch(self, rows: int, length: int) -> float:
        """Return the operations of forward and backward pass over ``rows`` of ``length`` tokens."""
        return rows * length * (self._dense + self._attention * length)


@lru_cache(maxsize=1)
def measure_peak(dtype: Dtype) -> float:
    """Return the FLOP/s of the best of a few square matrix products in ``dtype``; measured once a process."""
    size = GEMM_SIZE["gpu" if on_gpu() else "cpu"]
    left = paddle.ones([size, size]).astype(dtype)
    best = float("inf")
    for _ in range(GEMM_RUNS):
        start = time.perf_counter()
        paddle.matmul(left, left)
        if on_gpu():
            paddle.device.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
