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

    from .ranks import Ranks

EMA_DECAY = 0.98


class Observer(Protocol):
    """Something that looks at inputs."""

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        """Take in the inputs of a batch.

        Args:
            x_TI: float32, of the real tokens of the batch.
            rows_T: the row of the batch that each token is in.
        """

    def join(self, ranks: Ranks) -> None:
        """Take in what the same observers of other ranks have seen; all ranks end up with the same.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """


First = TypeVar("First", bound=Observer)
Second = TypeVar("Second", bound=Observer)


@dataclass(slots=True)
class Extremes:
    """Smallest, largest and mean value of each input, for shifts and scales."""

    batches: list[np.ndarray] = field(default_factory=list)
    """Smallest, largest and mean values of each, [3, I]."""

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        self.batches.append(np.stack([x_TI.min(axis=0).numpy(), x_TI.max(axis=0).numpy(), x_TI.mean(axis=0).numpy()]))

    def join(self, ranks: Ranks) -> None:
        self.batches = ranks.in_order(self.batches)

    @property
    def low_I(self) -> np.ndarray:
        """Smallest value of each input."""
        return np.asarray(np.min([low_I for low_I, _, _ in self.batches], axis=0))

    @property
    def high_I(self) -> np.ndarray:
        """Largest value of each input."""
        return np.asarray(np.max([high_I for _, high_I, _ in self.batches], axis=0))

    @property
    def absolute_I(self) -> np.ndarray:
        """Largest absolute value of each input."""
        largest_I: np.ndarray = np.maximum(-self.low_I, self.high_I)
        return largest_I

    @property
    def middle_I(self) -> np.ndarray:
        """Half way between the smallest and the largest value.

        Source: Wei et al. 2023, arXiv:2304.09145, eq. 3 (Outlier Suppression+).
        """
        middle_I: np.ndarray = (self.low_I + self.high_I) / 2
        return middle_I

    @property
    def average_I(self) -> np.ndarray:
        """The exponential moving average of the batches' means, corrected for its start at 0.

        Source: Kingma and Ba 2014, arXiv:1412.6980, section 3, for the correction.
        """
        average_I = np.zeros_like(self.batches[0][2])
        for _, _, mean_I in self.batches:
            average_I = EMA_DECAY * average_I + (1 - EMA_DECAY) * mean_I
        corrected: np.ndarray = (average_I / (1 - EMA_DECAY ** len(self.batches))).astype(np.float32)
        return corrected


@dataclass(slots=True)
class Moments:
    """Mean absolute value of each input and mean of ``x x^T``, for GPTQ and AWQ.

    Batches are summed in float64, where the order of float32 numbers does not matter but in the rarest case: so the
    sums are the same whichever rank saw which batch.
    """

    num_tokens: int = 0
    absolute_I: Tensor | None = None
    squares_II: Tensor | None = None

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        absolute_I = x_TI.abs().sum(axis=0).astype("float64")
        squares_II = paddle.matmul(x_TI, x_TI, transpose_x=True).astype("float64")
        self.absolute_I = absolute_I if self.absolute_I is None else self.absolute_I.add_(absolute_I)
        self.squares_II = squares_II if self.squares_II is None else self.squares_II.add_(squares_II)
        self.num_tokens += int(x_TI.shape[0])

    def join(self, ranks: Ranks) -> None:
        if ranks.is_alone:
            return
        said = ranks.say([self.num_tokens, 0 if self.absolute_I is None else self.absolute_I.shape[0]])
        self.num_tokens, size = sum(tokens for tokens, _ in said), max(size for _, size in said)
        self.absolute_I = ranks.total(self.absolute_I, [size])
        self.squares_II = ranks.total(self.squares_II, [size, size])

    @property
    def mean_abs_I(self) -> np.ndarray:
        """Mean absolute value of each input."""
        assert self.absolute_I is not None
        return np.asarray((self.absolute_I.numpy() / self.num_tokens).astype(np.float32))

    @property
    def hessian_II(self) -> np.ndarray:
        """Mean of ``x x^T``: the second derivative of the squared output error by a row of the matrix, halved."""
        assert self.squares_II is not None
        return np.asarray((self.squares_II.numpy() / self.num_tokens).astype(np.float32))


@dataclass(slots=True)
class AverageMaximum:
    """The absolute maximum of a whole input, averaged: over the rows of a batch, then over batches."""

    maxima: list[float] = field(default_factory=list)

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        largest_T = x_TI.abs().max(axis=1).numpy()
        self.maxima.append(float(np.mean([largest_T[rows_T == row].max() for row in np.unique(rows_T)])))

    def join(self, ranks: Ranks) -> None:
        self.maxima = [float(value) for value in ranks.in_order([np.array(value) for value in self.maxima])]

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

    def join(self, ranks: Ranks) -> None:
        self.first.join(ranks)
        self.second.join(ranks)


@dataclass(slots=True)
class SampledRows:
    """Some of the inputs themselves, evenly over all tokens of a batch, for searches that try arithmetic out."""

    per_batch: int
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, x_TI: Tensor, rows_T: np.ndarray) -> None:
        count = int(x_TI.shape[0])
        places = np.unique(np.linspace(0, count - 1, min(count, self.per_batch)).astype(np.int64))
        self.rows.append(paddle.gather(x_TI, paddle.to_tensor(places)).numpy())

    def join(self, ranks: Ranks) -> None:
        self.rows = ranks.in_order(self.rows)
