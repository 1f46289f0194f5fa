"""Scales and shifts that move outliers of activations into the weights, so that 8 bits hold both. Pure numpy.

Shape letters: O outputs, I inputs, T sampled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import GridSpec, fit_grid

SMALLEST = 1e-5
ALPHAS = tuple(round(0.2 + 0.05 * step, 2) for step in range(16))
"""Exponents that searches try: 0.2 to 0.95."""
CONSTANTS = tuple(1.5 + 0.5 * step for step in range(9))
"""Factors that the piecewise search tries for a whole piece: 1.5 to 5.5."""
INT8 = GridSpec(bits=8)


def smooth_scale(input_max_I: np.ndarray, weight_max_I: np.ndarray, alpha: float) -> np.ndarray:
    """Return ``max|x|^alpha / max|w|^(1 - alpha)``, by which inputs are divided and weights are multiplied.

    Args:
        input_max_I: largest absolute value of each input.
        weight_max_I: largest absolute weight of each input, over all matrices that read it.
        alpha: how much of the difficulty moves into the weights, 0 to 1.

    Source: Xiao et al. 2022, arXiv:2211.10438, eq. 4.
    """
    weight_max_I = np.maximum(weight_max_I, SMALLEST)
    scale_I = np.maximum(input_max_I**alpha / weight_max_I ** (1 - alpha), SMALLEST)
    return np.where(input_max_I > 0, scale_I, 1.0).astype(np.float32)


def search_alpha(
    rows_TI: np.ndarray, weight_OI: np.ndarray, input_max_I: np.ndarray, weight_max_I: np.ndarray
) -> np.ndarray:
    """Return the scale of ``smooth_scale`` with the alpha that leaves the least squared error of 8-bit arithmetic.

    Arguments as of ``PiecewiseSearch.run``. One alpha for all layers is no good choice: a second matrix of a
    feed-forward part wants about 0.9, where an attention projection is content with 0.7.
    """
    target_TO = rows_TI @ weight_OI.T

    def loss(alpha: float) -> float:
        return _loss(smooth_scale(input_max_I, weight_max_I, alpha), rows_TI, weight_OI, target_TO, input_max_I)

    # Coarsely first; there is one valley.
    losses = {alpha: loss(alpha) for alpha in ALPHAS[1::2]}
    best = min(losses, key=losses.__getitem__)
    near = [alpha for alpha in ALPHAS if 0 < abs(alpha - best) < 0.07]
    losses |= {alpha: loss(alpha) for alpha in near}
    return smooth_scale(input_max_I, weight_max_I, min(losses, key=losses.__getitem__))


@dataclass(frozen=True, slots=True)
class PiecewiseSearch:
    """The search for a scale of its own for each piece of the inputs, those of like size.

    It begins with the best alpha for all, and goes on from the piece of the largest inputs to that of the smallest:
    what the largest ones are divided by decides how finely the others are rounded.

    Source: the adaptive smoothing of PaddleSlim (docs of PaddleNLP 2.6, quantization), which begins without scales
    and with the smallest inputs, and carries over into a trial of more pieces what one of fewer has found.
    """

    num_pieces: int = 3
    tries_fewer: bool = False
    """Also try every smaller number of pieces, and keep the best."""

    def run(
        self, rows_TI: np.ndarray, weight_OI: np.ndarray, input_max_I: np.ndarray, weight_max_I: np.ndarray
    ) -> np.ndarray:
        """Return the factors [I] with the least squared error of the outputs of 8-bit arithmetic.

        Args:
            rows_TI: sampled inputs.
            weight_OI: all matrices that read them, one below the other.
            input_max_I: largest absolute value of each input.
            weight_max_I: largest absolute weight of each input.
        """
        target_TO = rows_TI @ weight_OI.T
        counts = range(1, self.num_pieces + 1) if self.tries_fewer else (self.num_pieces,)
        begin_I = search_alpha(rows_TI, weight_OI, input_max_I, weight_max_I)
        best, best_I = np.inf, begin_I
        for count in counts:
            scale_I, loss = begin_I, np.inf
            for piece_I in reversed(split_by_size(input_max_I, count)):
                scale_I, loss = _best_for_piece(
                    scale_I, piece_I, rows_TI, weight_OI, target_TO, input_max_I, weight_max_I
                )
            if loss < best:
                best, best_I = loss, scale_I
        return best_I


def split_by_size(values_I: np.ndarray, count: int) -> list[np.ndarray]:
    """Return up to ``count`` masks [I] of values of like magnitude, from small to large ones: k-means on logarithms.

    Source: Lloyd 1982, Least squares quantization in PCM; begun at quantiles, so that it is the same every time.
    """
    values_I = np.log(np.maximum(values_I, SMALLEST))
    centres_K = np.unique(np.quantile(values_I, (np.arange(count) + 0.5) / count))
    for _ in range(100):
        nearest_I = np.abs(values_I[:, None] - centres_K).argmin(axis=1)
        kept = np.unique(nearest_I)
        moved_K = np.sort([values_I[nearest_I == place].mean() for place in kept])
        if len(moved_K) == len(centres_K) and np.allclose(moved_K, centres_K):
            break
        centres_K = moved_K
    nearest_I = np.abs(values_I[:, None] - centres_K).argmin(axis=1)
    return [nearest_I == place for place in range(len(centres_K)) if (nearest_I == place).any()]


def _best_for_piece(
    scale_I: np.ndarray,
    piece_I: np.ndarray,
    rows_TI: np.ndarray,
    weight_OI: np.ndarray,
    target_TO: np.ndarray,
    input_max_I: np.ndarray,
    weight_max_I: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return the scale with the best factors for one piece, those of the pieces before being found already."""
    candidates = [smooth_scale(input_max_I, weight_max_I, alpha) for alpha in ALPHAS]
    candidates += [np.full_like(scale_I, constant) for constant in CONSTANTS]
    best, best_I = _loss(scale_I, rows_TI, weight_OI, target_TO, input_max_I), scale_I
    for candidate_I in candidates:
        tried_I = np.where(piece_I, candidate_I, scale_I)
        loss = _loss(tried_I, rows_TI, weight_OI, target_TO, input_max_I)
        if loss < best:
            best, best_I = loss, tried_I
    return best_I, best


def _loss(
    scale_I: np.ndarray, rows_TI: np.ndarray, weight_OI: np.ndarray, target_TO: np.ndarray, input_max_I: np.ndarray
) -> float:
    """Return the squared error of outputs of 8-bit inputs and weights, as a share of each token's own, averaged.

    The few tokens with outputs a hundred times as large would otherwise decide for all. All inputs are rounded by the
    largest one that was ever seen, which need not be among the rows.
    """
    inputs_TI, scaled_OI = rows_TI / scale_I, weight_OI * scale_I
    step = max(float((input_max_I / scale_I).max()) / INT8.highest, SMALLEST)
    grid = fit_grid(scaled_OI, INT8)
    codes_TI = np.clip(np.rint(inputs_TI / step), -INT8.highest, INT8.highest)
    outputs_TO = (codes_TI * step) @ grid.decode(grid.encode(scaled_OI)).T
    errors_T, sizes_T = ((outputs_TO - target_TO) ** 2).sum(axis=1), (target_TO**2).sum(axis=1)
    return float(np.mean(errors_T / np.maximum(sizes_T, np.finfo(np.float32).tiny)))
