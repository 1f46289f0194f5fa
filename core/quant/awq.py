"""Activation-aware scales and clipping: what weights are multiplied by, and cut at, before they are rounded.

Source: Lin et al. 2023, arXiv:2306.00978, sections 3.2 (scales) and 5.1 (clipping). Output errors are
computed from the mean of ``x x^T``, which gives what the samples themselves would give. Shape letters: O outputs,
I inputs, G groups of inputs that share a scale, J inputs of a group, S scales that are tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .grid import Grid, GridSpec, fit_grid
from .ranks import ALONE, Ranks

STEPS = 20
"""Exponents between 0 and 1 that are tried."""
SHRINKS = np.linspace(1.0, 0.5, 11, dtype=np.float32)
"""Shares of a group's range that are tried."""


def search_scale(
    weights: Sequence[np.ndarray],
    mean_abs_I: np.ndarray,
    hessian_II: np.ndarray,
    spec: GridSpec,
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """Return the factors [I] on the inputs' columns that leave the least error of outputs after rounding.

    Candidates are powers of the mean size of each input; all ones are among them.

    Args:
        weights: float32 [O, I] each; all read the same inputs.
        mean_abs_I: mean absolute value of each input; inputs with the same one get the same factor.
        hessian_II: mean of ``x x^T``.
        spec: bits and groups.
        ranks: each tries the factors on some of the outputs.

    Raises:
        DistributedError: a rank has gone, is late, or came to something else.
    """
    sizes_I = np.maximum(mean_abs_I, 1e-8).astype(np.float32)
    tried = []
    for step in range(STEPS):
        scale_I: np.ndarray = sizes_I ** (step / STEPS)
        tried.append(np.maximum(scale_I / np.sqrt(scale_I.max() * scale_I.min()), 1e-4))

    def errors_of(weight_OI: np.ndarray) -> np.ndarray:
        def some(rows: slice) -> list[np.ndarray]:
            return [np.stack([_scaled_error(weight_OI[rows], each_I, hessian_II, spec) for each_I in tried], axis=1)]

        return ranks.by_rows(len(weight_OI), some)[0]

    errors_S = np.sum([errors_of(weight_OI).sum(axis=0) for weight_OI in weights], axis=0)
    best_I: np.ndarray = tried[int(np.where(np.isnan(errors_S), np.inf, errors_S).argmin())]
    return best_I


def clipped_grid(weight_OI: np.ndarray, hessian_II: np.ndarray, spec: GridSpec) -> Grid:
    """Return the grid whose range, group by group and output by output, leaves the least error of that group's part.

    Args:
        weight_OI: float32, scaled already.
        hessian_II: mean of ``x x^T`` of the inputs as they are scaled now.
        spec: bits and groups.
    """
    num_groups = spec.num_groups(weight_OI.shape[1])
    size = weight_OI.shape[1] // num_groups
    blocks_GJJ = np.stack([hessian_II[at : at + size, at : at + size] for at in range(0, weight_OI.shape[1], size)])
    best_OG = np.full((weight_OI.shape[0], num_groups), np.inf, dtype=np.float32)
    shrink_OG = np.ones_like(best_OG)
    for shrink in SHRINKS:
        grid = fit_grid(weight_OI, spec, shrink)
        error_GOJ = (grid.decode(grid.encode(weight_OI)) - weight_OI).reshape(-1, num_groups, size).swapaxes(0, 1)
        error_OG = np.einsum("goj,goj->og", np.matmul(error_GOJ, blocks_GJJ), error_GOJ)
        better_OG = error_OG < best_OG
        best_OG, shrink_OG = np.where(better_OG, error_OG, best_OG), np.where(better_OG, shrink, shrink_OG)
    return fit_grid(weight_OI, spec, shrink_OG)


def clipped(weight_OI: np.ndarray, hessian_II: np.ndarray, spec: GridSpec) -> tuple[np.ndarray, Grid]:
    """Return codes int8 [O, I] and the grid of ``clipped_grid``."""
    grid = clipped_grid(weight_OI, hessian_II, spec)
    return grid.encode(weight_OI), grid


def _scaled_error(weight_OI: np.ndarray, scale_I: np.ndarray, hessian_II: np.ndarray, spec: GridSpec) -> np.ndarray:
    """Return the squared error of each output that rounding leaves where inputs' columns are scaled, float64 [O]."""
    scaled_OI = weight_OI * scale_I
    grid = fit_grid(scaled_OI, spec)
    difference_OI = weight_OI - grid.decode(grid.encode(scaled_OI)) / scale_I
    errors_O: np.ndarray = np.einsum("oi,oi->o", difference_OI @ hessian_II, difference_OI).astype(np.float64)
    return errors_O
