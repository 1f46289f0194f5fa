"""GPTQ: a matrix rounded column by column, each rounding error made good by the columns that are left.

Source: Frantar et al. 2022, arXiv:2210.17323, algorithm 1. Pure numpy. Shape letters: O outputs, I inputs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from .grid import Grid, GridSpec, round_to_nearest, search_grid

_log = logging.getLogger("llm_run.quant")

BLOCK = 128
"""Columns whose errors are handed to the rest of the matrix at once."""
MORE_DAMPING = 10.0
"""Factor on the damping after a Hessian that was still singular."""
MOST_TRIES = 8


@dataclass(frozen=True, slots=True)
class GptqSettings:
    """How columns are worked through."""

    act_order: bool = True
    """Columns of large inputs first, while there are many columns left to make their errors good. Groups stay
    neighbours: their scales are found before the first column is rounded."""
    damping: float = 0.01
    """Added to the Hessian's diagonal, as a share of its mean."""


def gptq(
    weight_OI: np.ndarray, hessian_II: np.ndarray, spec: GridSpec, settings: GptqSettings
) -> tuple[np.ndarray, Grid]:
    """Return codes int8 [O, I] and their grid.

    Args:
        weight_OI: float32.
        hessian_II: mean of ``x x^T`` over the inputs of calibration; may be singular.
        spec: bits and groups.
        settings: order and damping.
    """
    if not np.isfinite(hessian_II).all():
        _log.warning("GPTQ: the inputs of a layer are not finite numbers; its weights are rounded to the nearest")
        return round_to_nearest(weight_OI, spec)
    seen_I = np.diag(hessian_II) > 0
    weight_OI = np.where(seen_I, weight_OI, 0.0).astype(np.float32)  # what no input reaches may be anything
    importance_I = np.where(seen_I, np.diag(hessian_II), 1.0)
    grid = search_grid(weight_OI, spec, importance_I)
    order_I = np.argsort(-importance_I, kind="stable") if settings.act_order else np.arange(len(seen_I))
    upper_II = _inverse_factor(hessian_II[np.ix_(order_I, order_I)], settings.damping)
    scales_OI, zeros_OI = grid.columns(weight_OI.shape[1])
    codes_OI = np.empty(weight_OI.shape, dtype=np.int8)
    codes_OI[:, order_I] = _round_columns(
        weight_OI[:, order_I], upper_II, scales_OI[:, order_I], zeros_OI[:, order_I], spec
    )
    return codes_OI, grid


def output_error(weight_OI: np.ndarray, rounded_OI: np.ndarray, hessian_II: np.ndarray) -> float:
    """Return ``|X (W - W')^T| / |X W^T|``, the relative error of a layer's outputs, from the inputs' Hessian alone."""
    return relative_error(*squared_errors(weight_OI, rounded_OI, hessian_II))


def squared_errors(
    weight_OI: np.ndarray, rounded_OI: np.ndarray, hessian_II: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``|X (w - w')|^2`` and ``|X w|^2`` of each row of a matrix, float64 [O]."""
    difference_OI = (weight_OI - rounded_OI).astype(np.float64)
    errors_O = np.sum(difference_OI @ hessian_II * difference_OI, axis=1)
    return errors_O, np.sum(weight_OI.astype(np.float64) @ hessian_II * weight_OI, axis=1)


def relative_error(errors_O: np.ndarray, sizes_O: np.ndarray) -> float:
    """Return the root of the share that squared errors of outputs have of their squared sizes."""
    tiny = np.finfo(np.float64).tiny
    return float(np.sqrt(max(float(np.sum(errors_O)), 0.0) / max(float(np.sum(sizes_O)), tiny)))


def _round_columns(
    weight_OI: np.ndarray, upper_II: np.ndarray, scales_OI: np.ndarray, zeros_OI: np.ndarray, spec: GridSpec
) -> np.ndarray:
    """Round column after column; ``weight_OI`` is changed on the way."""
    num_out, num_in = weight_OI.shape
    codes_OI = np.empty((num_out, num_in), dtype=np.int8)
    for first in range(0, num_in, BLOCK):
        last = min(first + BLOCK, num_in)
        # By columns: each is read and written whole.
        block_OJ = np.asfortranarray(weight_OI[:, first:last])
        errors_OJ = np.zeros_like(block_OJ)
        for place in range(last - first):
            column = first + place
            weight_O, scale_O, zero_O = block_OJ[:, place], scales_OI[:, column], zeros_OI[:, column]
            code_O = np.clip(np.rint(weight_O / scale_O) + zero_O, spec.lowest, spec.highest)
            codes_OI[:, column] = code_O
            error_O = (weight_O - (code_O - zero_O) * scale_O) / upper_II[column, column]
            block_OJ[:, place + 1 :] -= np.outer(error_O, upper_II[column, column + 1 : last])
            errors_OJ[:, place] = error_O
        weight_OI[:, last:] -= errors_OJ @ upper_II[first:last, last:]
    return codes_OI


def _inverse_factor(hessian_II: np.ndarray, damping: float) -> np.ndarray:
    """Return U, upper triangular, with ``U^T U`` the inverse of the damped Hessian, float32.

    Damping is raised until the factors exist: too few samples, or inputs that always move together, make a Hessian
    that has no inverse.
    """
    hessian_II = hessian_II.astype(np.float64)
    diagonal_I = np.diag(hessian_II)
    mean = float(diagonal_I.mean()) or 1.0
    share = max(damping, float(np.finfo(np.float32).eps))
    for _ in range(MOST_TRIES):
        damped_II = hessian_II.copy()
        np.fill_diagonal(damped_II, np.where(diagonal_I > 0, diagonal_I, mean) + share * mean)
        try:
            # With the order of rows and columns reversed, the lower factor of H gives the upper one of its inverse.
            lower_II = np.linalg.cholesky(damped_II[::-1, ::-1])
        except np.linalg.LinAlgError:
            share *= MORE_DAMPING
            continue
        upper_II = _invert_lower(lower_II)[::-1, ::-1]
        if np.isfinite(upper_II).all():
            return np.ascontiguousarray(upper_II, dtype=np.float32)
        share *= MORE_DAMPING
    return np.eye(len(hessian_II), dtype=np.float32)  # errors of columns are then left where they are


def _invert_lower(lower_II: np.ndarray) -> np.ndarray:
    """Invert a lower triangular matrix by halves: numpy has no triangular solver."""
    size = len(lower_II)
    if size <= 64:
        return np.tril(np.linalg.inv(lower_II))
    half = size // 2
    inverse_II = np.zeros_like(lower_II)
    first = inverse_II[:half, :half] = _invert_lower(lower_II[:half, :half])
    second = inverse_II[half:, half:] = _invert_lower(lower_II[half:, half:])
    inverse_II[half:, :half] = -second @ (lower_II[half:, :half] @ first)
    return inverse_II
