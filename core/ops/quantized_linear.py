"""Linear layers whose weights are 8- or 4-bit integers: weight-only, and with 8-bit activations.

This is the plain reference and the layout that faster variants read. Shape letters: O outputs, I inputs, G groups of
inputs that share a scale, T tokens (any number of leading axes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from .quantized_linear_gpu import gpu_int8_linear, gpu_weight_only_linear, int8_obstacle, weight_only_obstacle
from .select import decline, uses_gpu

if TYPE_CHECKING:
    from paddle import Tensor

    from .quantized_linear_gpu import TiledWeight

SMALLEST_SCALE = 1e-8
"""Of an activation: a row of zeros is divided by this and not by 0."""
LARGEST_CODE = 127
"""Of an 8-bit activation, which is symmetric."""
BLOCK = 32
"""Inputs that share a scale of the activations where they are rounded by block."""


@dataclass(frozen=True)
class QuantizedWeight:
    """An integer matrix and what makes numbers of it: ``(code - zero) * scale`` by output and group of inputs."""

    codes: Tensor
    """8 bits: int8 [O, I]. 4 bits: uint8 [O, ceil(I / 2)], each byte two neighbours of a row, the one of the even
    column in its low half; a half holds code + 8, so that codes are -8 to 7."""
    scales_OG: Tensor
    """float32, G = I / group_size; one group without a group size."""
    zeros_OG: Tensor | None
    """int8 codes that stand for 0; ``None``: all are 0 (symmetric)."""
    bits: int
    """8 or 4."""
    in_size: int
    """I."""
    group_size: int
    """Neighbouring inputs that share a scale; -1: all of a row."""
    order_I: Tensor | None = None
    """int64: column i of ``codes`` is multiplied by input ``order[i]``; ``None``: by input i. Some files group inputs
    by their importance; their columns are sorted when they are read, so that groups are neighbours here."""

    @property
    def out_size(self) -> int:
        """O."""
        return int(self.codes.shape[0])

    @cached_property
    def tiled(self) -> TiledWeight:
        """In the layout of Paddle's GPU kernels; made once."""
        from .quantized_linear_gpu import tile

        return tile(self)

    @property
    def num_bytes(self) -> int:
        """In memory, with scales and zeros."""
        tensors = (self.codes, self.scales_OG, self.zeros_OG, self.order_I)
        return sum(int(tensor.size * tensor.element_size()) for tensor in tensors if tensor is not None)


def weight_only_linear(x_TI: Tensor, weight: QuantizedWeight, bias_O: Tensor | None = None) -> Tensor:
    """Return ``x W^T + bias`` for a quantized W, computed in the dtype of ``x``.

    Args:
        x_TI: activations, any float dtype.
        weight: the integer matrix.
        bias_O: in the dtype of ``x``, or ``None``.
    """
    x_TI = _ordered(x_TI, weight)
    if uses_gpu("quantized_linear", x_TI):
        obstacle = weight_only_obstacle(x_TI, weight)
        if not obstacle:
            return gpu_weight_only_linear(x_TI, weight, bias_O)
        decline("quantized_linear", obstacle)
    matrix_OI = dequantize(weight, sort=False)
    y_TO: Tensor = paddle.matmul(x_TI, matrix_OI.astype(x_TI.dtype), transpose_y=True)
    return y_TO if bias_O is None else y_TO + bias_O


def int8_linear(
    x_TI: Tensor, weight: QuantizedWeight, bias_O: Tensor | None = None, *, input_scale: float | None
) -> Tensor:
    """Return ``x W^T + bias`` with activations rounded to 8 bits as well (W8A8).

    Args:
        x_TI: activations, any float dtype.
        weight: 8 bits, symmetric, one scale an output.
        bias_O: in the dtype of ``x``, or ``None``.
        input_scale: what an activation code of 1 stands for (absolute maximum / 127), measured beforehand; ``None``:
            each token is divided by its own maximum.

    Source: Xiao et al. 2022, arXiv:2211.10438, section 2 (per-tensor static, and per-token dynamic quantization).
    """
    assert weight.bits == 8 and weight.zeros_OG is None and weight.group_size == -1, "W8A8 has one scale an output"
    x_TI = _ordered(x_TI, weight)
    if uses_gpu("quantized_linear", x_TI):
        obstacle = int8_obstacle(x_TI, weight, input_scale)
        if not obstacle:
            return gpu_int8_linear(x_TI, weight, bias_O)
        decline("quantized_linear", obstacle)
    wide_TI = x_TI.astype("float32")
    if input_scale is None:
        scale: Tensor = (wide_TI.abs().max(axis=-1, keepdim=True) / LARGEST_CODE).clip(min=SMALLEST_SCALE)
    else:
        # As a tensor: a graph would multiply by the inverse of a number, and round some activations otherwise.
        scale = paddle.full([1], max(input_scale, SMALLEST_SCALE))
    codes_TI = paddle.round(wide_TI / scale).clip(-LARGEST_CODE, LARGEST_CODE)
    # Rounded to the nearest, ties to even. Float sums are exact up to 2^24, which 1040 products cannot exceed.
    sums_TO = paddle.matmul(codes_TI, weight.codes.astype("float32"), transpose_y=True)
    y_TO: Tensor = (sums_TO * scale * weight.scales_OG.reshape([-1])).astype(x_TI.dtype)
    return y_TO if bias_O is None else y_TO + bias_O


def round_blocks(x_TI: Tensor) -> Tensor:
    """Return activations as 8-bit codes by block of 32 inputs give them back: within 0.4 % of a block's largest number.

    Args:
        x_TI: activations, any float dtype; the last block may be short.

    Source: Q8_0 of GGUF, which llama.cpp multiplies integer weights by, but with scales of float32.
    """
    width = x_TI.shape[-1]
    padded_TI = nn.functional.pad(x_TI.astype("float32").reshape([-1, width]), [0, -width % BLOCK])
    blocks_TBI = padded_TI.reshape([padded_TI.shape[0], -1, BLOCK])
    largest_TB1 = blocks_TBI.abs().max(axis=-1, keepdim=True)
    codes_TBI = paddle.round(blocks_TBI * (LARGEST_CODE / largest_TB1.clip(min=1e-30)))
    rounded_TI = (codes_TBI * (largest_TB1 / LARGEST_CODE)).reshape(padded_TI.shape)[:, :width]
    return rounded_TI.reshape(x_TI.shape).astype(x_TI.dtype)


def dequantize(weight: QuantizedWeight, *, sort: bool = True) -> Tensor:
    """Return the float32 matrix [O, I] that a quantized one stands for.

    Args:
        weight: the integer matrix.
        sort: bring the columns into the order of the inputs; False leaves them as the codes lie.
    """
    codes_OI = unpack(weight).astype("float32")
    num_groups = weight.scales_OG.shape[1]
    codes_OGJ = codes_OI.reshape([weight.out_size, num_groups, -1])
    if weight.zeros_OG is not None:
        codes_OGJ = codes_OGJ - weight.zeros_OG.astype("float32").unsqueeze(-1)
    matrix_OI = (codes_OGJ * weight.scales_OG.unsqueeze(-1)).reshape([weight.out_size, weight.in_size])
    if sort and weight.order_I is not None:
        matrix_OI = paddle.gather(matrix_OI, paddle.argsort(weight.order_I), axis=1)
    return matrix_OI


def unpack(weight: QuantizedWeight) -> Tensor:
    """Return the signed codes, int8 [O, I]."""
    if weight.bits == 8:
        return weight.codes
    bytes_OJ = weight.codes.astype("int32")
    halves_OJ2 = paddle.stack([bytes_OJ % 16, bytes_OJ // 16], axis=-1)
    return (halves_OJ2.reshape([weight.out_size, -1])[:, : weight.in_size] - 8).astype("int8")


def _ordered(x_TI: Tensor, weight: QuantizedWeight) -> Tensor:
    return x_TI if weight.order_I is None else paddle.gather(x_TI, weight.order_I, axis=-1)
