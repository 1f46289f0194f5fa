"""Frozen matrices that a gradient goes through: as numbers, or as the codes of a quantized model.

Shape letters: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import paddle
from paddle.autograd import PyLayer

from ..ops import QuantizedWeight, dequantize
from ..ops.native import differentiable
from ..ops.nf4 import Nf4Weight, dequantize_nf4

if TYPE_CHECKING:
    from paddle import Tensor


class FrozenMatrix(Protocol):
    """A matrix [in, out] that is not trained."""

    @property
    def shape(self) -> tuple[int, int]:
        """In, out."""

    def times(self, x_TI: Tensor) -> Tensor:
        """Return ``x W`` [T, out], in the dtype of ``x``."""

    def back(self, dy_TO: Tensor) -> Tensor:
        """Return ``dy W^T`` [T, in], in the dtype of ``dy``."""

    def values(self) -> Tensor:
        """Return the matrix itself, float32."""


@dataclass(frozen=True, slots=True)
class PlainMatrix:
    """Numbers (``FrozenMatrix``)."""

    weight_IO: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.weight_IO.shape[0]), int(self.weight_IO.shape[1])

    def times(self, x_TI: Tensor) -> Tensor:
        y_TO: Tensor = paddle.matmul(x_TI, self.weight_IO)
        return y_TO

    def back(self, dy_TO: Tensor) -> Tensor:
        # Under autocast the parameters are wider than the activations.
        dx_TI: Tensor = paddle.matmul(dy_TO, as_type(self.weight_IO, dy_TO.dtype), transpose_y=True)
        return dx_TI

    def values(self) -> Tensor:
        return self.weight_IO


Coded = QuantizedWeight | Nf4Weight


@dataclass(frozen=True, slots=True)
class CodedMatrix:
    """Codes of 4 or 8 bits, which are numbers only while they are multiplied (``FrozenMatrix``)."""

    coded: Coded

    @property
    def shape(self) -> tuple[int, int]:
        if isinstance(self.coded, Nf4Weight):
            return self.coded.shape[1], self.coded.shape[0]
        return self.coded.in_size, self.coded.out_size

    def times(self, x_TI: Tensor) -> Tensor:
        y_TO: Tensor = paddle.matmul(x_TI, as_type(self._read(), x_TI.dtype), transpose_y=True)
        return y_TO

    def back(self, dy_TO: Tensor) -> Tensor:
        dx_TI: Tensor = paddle.matmul(dy_TO, as_type(self._read(), dy_TO.dtype))
        return dx_TI

    def values(self) -> Tensor:
        matrix_IO: Tensor = self._read().T
        return matrix_IO

    def _read(self) -> Tensor:
        """Return the matrix [out, in]."""
        with paddle.no_grad():
            return dequantize_nf4(self.coded) if isinstance(self.coded, Nf4Weight) else dequantize(self.coded)


def frozen_linear(x: Tensor, matrix: FrozenMatrix) -> Tensor:
    """Return ``x W`` for activations [..., in]; nothing of the matrix is kept for the backward pass."""
    return differentiable(_FrozenLinear, x, matrix)


class _FrozenLinear(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: FrozenMatrix) -> Tensor:
        ctx.matrix, ctx.shape = matrix, x.shape
        y_TO = matrix.times(x.reshape([-1, x.shape[-1]]))
        y: Tensor = y_TO.reshape([*x.shape[:-1], y_TO.shape[-1]])
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        dx: Tensor = ctx.matrix.back(dy.reshape([-1, dy.shape[-1]])).reshape(ctx.shape)
        return dx


def as_type(tensor: Tensor, dtype: Any) -> Tensor:
    """Return the tensor in that dtype, itself where it has it."""
    return tensor if tensor.dtype == dtype else tensor.astype(dtype)
