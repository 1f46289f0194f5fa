"""The linear layer that computes with integers, and putting it into a model. Shape letters: O outputs, I inputs,
G groups of inputs that share a scale, T tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn

from ..ops import QuantizedWeight, int8_linear, round_blocks, weight_only_linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .grid import Grid


@dataclass(frozen=True, slots=True)
class InputQuantization:
    """That inputs are rounded to 8 bits, and how."""

    scale: float | None = None
    """What a code of 1 stands for; ``None``: each token, or block of it, has its own."""
    by_block: bool = False
    """Blocks of 32 inputs have scales of their own; weights of any bits and groups can be multiplied by them."""


@dataclass(slots=True)
class Adjustment:
    """What is done to the inputs of a layer where no norm before it could take it over: ``(x + shift) * factor``."""

    shift_I: Tensor | None = None
    factor_I: Tensor | None = None

    def __call__(self, x_TI: Tensor) -> Tensor:
        if self.shift_I is not None:
            x_TI = x_TI + self.shift_I.astype(x_TI.dtype)
        return x_TI if self.factor_I is None else x_TI * self.factor_I.astype(x_TI.dtype)


class QuantizedLinear(nn.Layer):
    """A linear layer with 8- or 4-bit weights; its bias keeps the name that it had."""

    def __init__(
        self,
        weight: QuantizedWeight,
        bias_O: Tensor | None,
        *,
        inputs: InputQuantization | None = None,
        adjustment: Adjustment | None = None,
        added_bias_O: Tensor | None = None,
    ) -> None:
        """Take over the parts.

        Args:
            weight: the integers.
            bias_O: a parameter of the model, or ``None``.
            inputs: rounds inputs to 8 bits as well; ``None``: weight-only.
            adjustment: is applied to the inputs first.
            added_bias_O: makes good a shift where the model has no bias.
        """
        super().__init__()
        self.quantized, self.inputs = weight, inputs
        self.adjustment = adjustment or Adjustment()
        self.bias, self.added_bias_O = bias_O, added_bias_O

    def forward(self, x_TI: Tensor) -> Tensor:
        x_TI = self.adjustment(x_TI)
        bias_O = self.added_bias_O if self.bias is None else self.bias
        if self.inputs is None:
            return weight_only_linear(x_TI, self.quantized, bias_O)
        if self.inputs.by_block:
            return weight_only_linear(round_blocks(x_TI), self.quantized, bias_O)
        return int8_linear(x_TI, self.quantized, bias_O, input_scale=self.inputs.scale)

    def with_weight(self, weight: QuantizedWeight) -> QuantizedLinear:
        """Return a layer with other integers, and all else of this one."""
        adjustment, added_O = self.adjustment, self.added_bias_O
        return QuantizedLinear(weight, self.bias, inputs=self.inputs, adjustment=adjustment, added_bias_O=added_O)

    def extra_repr(self) -> str:
        weight = self.quantized
        return f"in={weight.in_size}, out={weight.out_size}, bits={weight.bits}, group={weight.group_size}"


def pack_weight(codes_OI: np.ndarray, grid: Grid, order_I: np.ndarray | None = None) -> QuantizedWeight:
    """Return codes as the operators read them.

    Args:
        codes_OI: int8; groups are neighbouring columns.
        grid: what they stand for.
        order_I: the input that each column is multiplied by, where that is not its own number.
    """
    bits = grid.spec.bits
    return QuantizedWeight(
        codes=paddle.to_tensor(codes_OI if bits == 8 else _pairs(codes_OI)),
        scales_OG=paddle.to_tensor(grid.scales_OG),
        zeros_OG=None if grid.zeros_OG is None else paddle.to_tensor(grid.zeros_OG),
        bits=bits,
        in_size=codes_OI.shape[1],
        group_size=grid.spec.group_size,
        order_I=None if order_I is None else paddle.to_tensor(order_I.astype(np.int64)),
    )


def quantized_layers(model: nn.Layer) -> dict[str, QuantizedLinear]:
    """Return the quantized layers of a model, by name."""
    return {name: layer for name, layer in model.named_sublayers() if isinstance(layer, QuantizedLinear)}


def put_layers(model: CausalLM, layers: Mapping[str, nn.Layer]) -> None:
    """Put layers in the place of those that have their names."""
    for name, layer in layers.items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_sublayer(owner) if owner else model, last, layer)


def _pairs(codes_OI: np.ndarray) -> np.ndarray:
    """Return codes of -8 to 7 two to a byte, the even column in the low half."""
    halves_OI = (codes_OI + 8).astype(np.uint8)
    if halves_OI.shape[1] % 2:
        halves_OI = np.pad(halves_OI, ((0, 0), (0, 1)))
    packed: np.ndarray = halves_OI[:, 0::2] | (halves_OI[:, 1::2] << 4)
    return packed
