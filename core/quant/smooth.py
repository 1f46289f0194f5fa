"""Scales and shifts that move outliers of activations into the weights, so that 8 bits hold both. Pure numpy.

Shape letters: O outputs, I inputs, T sampled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True)
class Trial:
    """What a search tries its factors on: some inputs, and the matrices that read them."""

    rows_TI: np.ndarray
    """Sampled inputs."""
    weight_OI: np.ndarray
    """Matrices that read them, one below the other; some of the outputs are enough."""
    input_max_I: np.ndarray
    """Largest absolute value of each input, of all that were seen."""
    weight_max_I: np.ndarray
    """Largest absolute weight of each input."""
    per_token: bool
    """Each token is rounded by its own largest input; otherwise all by the largest that was ever seen."""

    @cached_property
    def target_TO(self) -> np.ndarray:
        """Outputs without rounding."""
        return np.asarray(self.rows_TI @ self.weight_OI.T)

    def smoothed(self, alpha: float) -> np.ndarray:
        """Return the factors [I] of one alpha."""
        return smooth_scale(self.input_max_I, self.weight_max_I, alpha)

    def loss(self, scale_I: np.ndarray) -> float:
        """Return the mean squared error of outputs of 8-bit inputs and weights.

        Taken as shares of a token's own outputs instead, errors lead to factors that are about as good: with one scale
        for all tokens, the perplexity of SmolLM2-135M rises by 4.5 per cent then, and by 4.9 here.
        """
        inputs_TI, scaled_OI = self.rows_TI / scale_I, self.weight_OI * scale_I
        if self.per_token:
            largest: np.ndarray = np.abs(inputs_TI).max(axis=1, keepdims=True)
        else:
            largest = (self.input_max_I / scale_I).max(keepdims=True)
        step = np.maximum(largest / INT8.highest, SMALLEST)
        grid = fit_grid(scaled_OI, INT8)
        codes_TI = np.clip(np.rint(inputs_TI / step), -INT8.highest, INT8.highest)
        outputs_TO = (codes_TI * step) @ grid.decode(grid.encode(scaled_OI)).T
        return float(np.mean((outputs_TO - self.target_TO) ** 2))


def search_alpha(trial: Trial) -> np.ndarray:
    """Return the scale of ``smooth_scale`` with the alpha that leaves the least squared error of 8-bit arithmetic.

    One alpha for all layers is no good choice: a second matrix of a feed-forward part wants about 0.9, where an
    attention projection is content with 0.7.
    """
    # Coarsely first; there is one valley.
    losses = {alpha: trial.loss(trial.smoothed(alpha)) for alpha in ALPHAS[1::2]}
    best = min(losses, key=losses.__getitem__)
    near = [alpha for alpha in ALPHAS if 0 < abs(alpha - best) < 0.07]
    losses |= {alpha: trial.loss(trial.smoothed(alpha)) for alpha in near}
    return trial.smoothed(min(losses, key=losses.__getitem__))


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

    def run(self, trial: Trial) -> np.ndarray:
        """Return the factors [I] with the least squared error of the outputs of 8-bit arithmetic."""
        counts = range(1, self.num_pieces + 1) if self.tries_fewer else (self.num_pieces,)
        begin_I = search_alpha(trial)
        best, best_I = np.inf, begin_I
        for count in counts:
            scale_I, loss = begin_I, np.inf
            for piece_I in reversed(split_by_size(trial.input_max_I, count)):
                scale_I, loss = _best_for_piece(scale_I, piece_I, trial)
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


def _best_for_piece(scale_I: np.ndarray, piece_I: np.ndarray, trial: Trial) -> tuple[np.ndarray, float]:
    """Return the scale with the best factors for one piece, those of the pieces before being found already."""
    candidates = [trial.smoothed(alpha) for alpha in ALPHAS]
    candidates += [np.full_like(scale_I, constant) for constant in CONSTANTS]
    best, best_I = trial.loss(scale_I), scale_I
    for candidate_I in candidates:
        tried_I = np.where(piece_I, candidate_I, scale_I)
        loss = trial.loss(tried_I)
        if loss < best:
            best, best_I = loss, tried_I
    return best_I, best
