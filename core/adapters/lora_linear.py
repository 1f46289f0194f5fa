"""A linear layer with a low-rank addition, under the parameter names of the layer that it replaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ..convert.load import fill
from .frozen import FrozenMatrix, PlainMatrix, frozen_linear
from .low_rank import linear_with_product

if TYPE_CHECKING:
    from paddle import Tensor

    from .settings import LoraSettings

NORM_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class Factors:
    """What an adapter adds, and DoRA's length of each column."""

    a_IR: Tensor
    b_RO: Tensor
    lengths_O: Tensor | None


class LoraLinear(nn.Layer):
    """``x W + b + scaling * dropout(x) A B``, where only A [in, r] and B [r, out] are trained.

    With DoRA the sum of W and the product is scaled, column by column, to a trained length, and the length it had is
    taken as a constant in the backward pass. With PiSSA, A and B begin as the largest singular values of W and what
    they began as is subtracted, so that W itself stays as it is.

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3; Liu et al. 2024, arXiv:2402.09353, eq. 5 and section 4.3;
    Meng et al. 2024, arXiv:2404.02948, eq. 2 to 4.
    """

    def __init__(self, base: nn.Layer, settings: LoraSettings, first_IR: np.ndarray) -> None:
        """Take over the matrix and the bias of a layer, which are frozen.

        Args:
            base: the layer that is replaced, with values.
            settings: of the adapter.
            first_IR: what A begins with.
        """
        super().__init__()
        self.frozen = self.take_over(base)
        self.scaling, self.dropout, self.is_pissa = settings.scaling, settings.dropout, settings.pissa
        self.is_off = False
        """Compute as before training (``adapters_off``)."""
        self.begun: Factors | None = None
        """What that was, where training goes on from an adapter; ``None``: there was none."""
        rank, out_size = first_IR.shape[1], self.frozen.shape[1]
        self.lora_A = self.create_parameter(list(first_IR.shape))
        self.lora_B = self.create_parameter([rank, out_size], default_initializer=nn.initializer.Constant(0.0))
        fill(self.lora_A, first_IR)
        self.lora_magnitude: Tensor | None = None
        if self.is_pissa:
            self._begin_with_singular_values(rank)

    def take_over(self, base: nn.Layer) -> FrozenMatrix:
        """Hold and freeze the parameters of a layer, and return its matrix."""
        self.weight, self.bias = base.weight, base.bias
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.stop_gradient = True
        return PlainMatrix(self.weight)

    def train_lengths(self) -> None:
        """Train the length of each column as well, beginning with that of W (DoRA)."""
        self.lora_magnitude = self.create_parameter([self.frozen.shape[1]])
        fill(self.lora_magnitude, self.column_norms(self.frozen.values()).numpy())

    def forward(self, x: Tensor) -> Tensor:
        out = self.multiply(x)
        return out if self.bias is None else out + self.bias

    def remember(self) -> None:
        """Take what the adapter is now for what it was before training."""
        magnitude = None if self.lora_magnitude is None else self.lora_magnitude.detach().clone()
        self.begun = Factors(self.lora_A.detach().clone(), self.lora_B.detach().clone(), magnitude)

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product with the adapted matrix, without the bias."""
        factors = self.begun if self.is_off else Factors(self.lora_A, self.lora_B, self.lora_magnitude)
        if factors is None:
            return frozen_linear(x, self.frozen)
        dropped = F.dropout(x, self.dropout, training=self.training) if self.dropout else x
        if factors.lengths_O is not None:
            return self._scaled_by_column(x, dropped, factors, factors.lengths_O)
        out = linear_with_product(x, dropped, self.frozen, factors.a_IR, factors.b_RO, self.scaling)
        if self.is_pissa:
            out = out - self.scaling * F.linear(F.linear(dropped, self.start_A), self.start_B)
        return out

    def whole(self, factors: Factors) -> Tensor:
        """Return ``W + scaling A B`` [in, out], before any scaling of columns."""
        product = paddle.matmul(factors.a_IR, factors.b_RO)
        if self.is_pissa:
            product = product - paddle.matmul(self.start_A, self.start_B)
        whole: Tensor = self.frozen.values() + product * self.scaling
        return whole

    def merged(self) -> np.ndarray:
        """Return the matrix [in, out] that does the same without an adapter; float32."""
        with paddle.no_grad():
            whole = self.whole(Factors(self.lora_A, self.lora_B, self.lora_magnitude))
            if self.lora_magnitude is not None:
                whole = whole * (self.lora_magnitude / self.column_norms(whole))
            values: np.ndarray = whole.numpy()
            return values

    def plain(self) -> nn.Layer:
        """Return a layer without an adapter that has the same matrix and bias."""
        layer = nn.Linear(1, 1, bias_attr=False)
        layer.weight, layer.bias = self.weight, self.bias
        return layer

    def column_norms(self, matrix_IO: Tensor) -> Tensor:
        """Return the length of each column [out]."""
        norms: Tensor = paddle.clip(self.sum_of_rows(matrix_IO.square()).sqrt(), min=NORM_EPS)
        return norms

    def sum_of_rows(self, matrix_IO: Tensor) -> Tensor:
        """Return the sum of each column [out]."""
        sums: Tensor = matrix_IO.sum(axis=0)
        return sums

    def _scaled_by_column(self, x: Tensor, dropped: Tensor, factors: Factors, lengths_O: Tensor) -> Tensor:
        factor_O = lengths_O / self.column_norms(self.whole(factors).detach())
        out = frozen_linear(x, self.frozen)
        base = out if dropped is x else frozen_linear(dropped, self.frozen)
        added = F.linear(self.scaling * F.linear(dropped, factors.a_IR), factors.b_RO)
        return out + (factor_O - 1) * base + factor_O * added

    def _begin_with_singular_values(self, rank: int) -> None:
        left, values, right = np.linalg.svd(self.frozen.values().numpy(), full_matrices=False)
        roots = np.sqrt(values[:rank] / self.scaling)
        fill(self.lora_A, (left[:, :rank] * roots).astype(np.float32))
        fill(self.lora_B, (roots[:, None] * right[:rank]).astype(np.float32))
        self.register_buffer("start_A", self.lora_A.detach().clone())
        self.register_buffer("start_B", self.lora_B.detach().clone())
