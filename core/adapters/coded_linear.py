"""Linear layers whose frozen matrix is kept as codes, plain and with an adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paddle import nn

from ..quant.layer import put_layers
from .frozen import CodedMatrix, frozen_linear
from .lora_linear import LoraLinear

if TYPE_CHECKING:
    import numpy as np
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .frozen import Coded, FrozenMatrix

Coder = Callable[["np.ndarray"], "Coded"]
"""Given a matrix [out, in], returns its codes."""


class CodedLinear(nn.Layer):
    """``x W + b`` with a matrix of codes, through which gradients reach ``x`` (QLoRA).

    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3.
    """

    def __init__(self, coded: Coded, bias: Tensor | None) -> None:
        """Take the codes, and the bias of the layer that is replaced."""
        super().__init__()
        self.frozen, self.bias = CodedMatrix(coded), bias

    def forward(self, x: Tensor) -> Tensor:
        out = frozen_linear(x, self.frozen)
        return out if self.bias is None else out + self.bias


class CodedLora(LoraLinear):
    """The adapter of a layer whose matrix is kept as codes."""

    def take_over(self, base: nn.Layer) -> FrozenMatrix:
        self.bias, self._base = base.bias, (base,)  # in a tuple, so that its parameters are not the model's twice
        if self.bias is not None:
            self.bias.stop_gradient = True
        matrix: FrozenMatrix = base.frozen
        return matrix

    def plain(self) -> nn.Layer:
        return self._base[0]


def encode_layers(model: CausalLM, names: list[str], coder: Coder) -> CausalLM:
    """Put codes in the place of matrices of a model in memory, one at a time, and return the model.

    Args:
        model: with values; a pipeline stage has some of the layers.
        names: of linear layers.
        coder: rounds a matrix.
    """
    for name in names:
        layer = model.get_sublayer(name)
        if "weight" in layer._parameters:
            coded = coder(layer.weight.numpy().T.copy())
            put_layers(model, {name: CodedLinear(coded, layer.bias)})
    return model
