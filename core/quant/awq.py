"""Activation-aware scales and clipping: what weights are multiplied by, and cut at, before they are rounded.

Source: Lin et al. 2023, arXiv:2306.00978, sections 3.2 (scales) and 5.1 (clipping). Pure numpy. Output errors are
computed from the mean of ``x x^T``, which gives what the samples themselves would give. Shape letters: O outputs,
I inputs, G groups of inputs that share a scale, J inputs of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .grid import Grid, GridSpec, fit_grid

STEPS = 20
"""Exponents between 0 and 1 that are tried."""
SHRINKS = np.linspace(1.0, 0.5, 11, dtype=np.float32)
"""Shares of a group's range that are tried."""


def search_scale(
    weights: Sequence[np.ndarray], mean_abs_I: np.ndarray, hessian_II: np.ndarray, spec: GridSpec
) -> np.ndarray:
    """Return the factors [I] on the inputs' columns that leave the least error of outputs after rounding.

    Candidates are powers of the mean size of each input; all ones are among them.

    Args:
        weights: float32 [O, I] each; all read the same inputs.
        mean_abs_I: mean absolute value of each input; inputs with the same one get the same factor.
        hessian_II: mean of ``x x^T``.
        spec: bits and groups.
    """
    sizes_I = np.maximum(mean_abs_I, 1e-8).astype(np.float32)
    best, best_I = float("inf"), np.ones(len(sizes_I), dtype=np.float32)
    for step in range(STEPS):
        scale_I: np.ndarray = sizes_I ** (step / STEPS)
        scale_I = np.maximum(scale_I / np.sqrt(scale_I.max() * scale_I.min()), 1e-4)
        error = 0.0
        for weight_OI in weights:
            scaled_OI = weight_OI * scale_I
            grid = fit_grid(scaled_OI, spec)
            error += _output_error(weight_OI - grid.decode(grid.encode(scaled_OI)) / scale_I, hessian_II)
        if error < best:
            best, best_I = error, scale_I
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


def _output_error(difference_OI: np.ndarray, hessian_II: np.ndarray) -> float:
    return float(np.einsum("oi,oi->", difference_OI @ hessian_II, difference_OI))
