"""What is remembered of the inputs of a linear layer while calibration data pass by.

Shape letters: B batch, S tokens, T real tokens of a batch, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import paddle

if TYPE_CHECKING:
    from paddle import Tensor

EMA_DECAY = 0.98


class Observer(Protocol):
    """Something that looks at inputs."""

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        """Take in the inputs of a batch.

        Args:
            x_TI: float32, of the real tokens of the batch.
            rows_T: the row of the batch that each token is in.
        """


First = TypeVar("First", bound=Observer)
Second = TypeVar("Second", bound=Observer)


@dataclass(slots=True)
class Extremes:
    """Smallest, largest and mean value of each input, for shifts and scales."""

    num_batches: int = 0
    low_I: np.ndarray | None = None
    high_I: np.ndarray | None = None
    mean_I: np.ndarray | None = None
    """Exponential moving average over batches, not yet corrected for its start at 0."""

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        low_I, high_I, mean_I = (each.numpy() for each in (x_TI.min(axis=0), x_TI.max(axis=0), x_TI.mean(axis=0)))
        self.low_I = low_I if self.low_I is None else np.minimum(self.low_I, low_I)
        self.high_I = high_I if self.high_I is None else np.maximum(self.high_I, high_I)
        before_I = 0.0 if self.mean_I is None else self.mean_I
        self.mean_I = EMA_DECAY * before_I + (1 - EMA_DECAY) * mean_I
        self.num_batches += 1

    @property
    def absolute_I(self) -> np.ndarray:
        """Largest absolute value of each input."""
        assert self.low_I is not None and self.high_I is not None
        largest_I: np.ndarray = np.maximum(-self.low_I, self.high_I)
        return largest_I

    @property
    def middle_I(self) -> np.ndarray:
        """Half way between the smallest and the largest value.

        Source: Wei et al. 2023, arXiv:2304.09145, eq. 3 (Outlier Suppression+).
        """
        assert self.low_I is not None and self.high_I is not None
        middle_I: np.ndarray = (self.low_I + self.high_I) / 2
        return middle_I

    @property
    def average_I(self) -> np.ndarray:
        """The moving average, corrected for its start.

        Source: Kingma and Ba 2014, arXiv:1412.6980, section 3, for the correction.
        """
        assert self.mean_I is not None
        corrected: np.ndarray = (self.mean_I / (1 - EMA_DECAY**self.num_batches)).astype(np.float32)
        return corrected


@dataclass(slots=True)
class Moments:
    """Mean absolute value of each input and mean of ``x x^T``, for GPTQ and AWQ."""

    num_tokens: int = 0
    absolute_I: Tensor | None = None
    squares_II: Tensor | None = None

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        absolute_I, squares_II = x_TI.abs().sum(axis=0), paddle.matmul(x_TI, x_TI, transpose_x=True)
        self.absolute_I = absolute_I if self.absolute_I is None else self.absolute_I + absolute_I
        self.squares_II = squares_II if self.squares_II is None else self.squares_II.add_(squares_II)
        self.num_tokens += int(x_TI.shape[0])

    @property
    def mean_abs_I(self) -> np.ndarray:
        """Mean absolute value of each input."""
        assert self.absolute_I is not None
        return np.asarray(self.absolute_I.numpy() / self.num_tokens)

    @property
    def hessian_II(self) -> np.ndarray:
        """Mean of ``x x^T``: the second derivative of the squared output error by a row of the matrix, halved."""
        assert self.squares_II is not None
        return np.asarray(self.squares_II.numpy() / self.num_tokens)


@dataclass(slots=True)
class AverageMaximum:
    """The absolute maximum of a whole input, averaged: over the rows of a batch, then over batches."""

    maxima: list[float] = field(default_factory=list)

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        largest_T = x_TI.abs().max(axis=1).numpy()
        self.maxima.append(float(np.mean([largest_T[rows_T == row].max() for row in np.unique(rows_T)])))

    @property
    def value(self) -> float:
        """The average."""
        return float(np.mean(self.maxima))


@dataclass(slots=True)
class Both(Generic[First, Second]):
    """Two observers of the same inputs, so that these are computed once."""

    first: First
    second: Second

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        self.first.add(x_TI, rows_T)
        self.second.add(x_TI, rows_T)


@dataclass(slots=True)
class SampledRows:
    """Some of the inputs themselves, evenly over all tokens of a batch, for searches that try arithmetic out."""

    per_batch: int
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        count = int(x_TI.shape[0])
        places = np.unique(np.linspace(0, count - 1, min(count, self.per_batch)).astype(np.int64))
        self.rows.append(paddle.gather(x_TI, paddle.to_tensor(places)).numpy())
