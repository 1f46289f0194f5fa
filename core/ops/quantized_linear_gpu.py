"""Linear layers of integers through Paddle's kernels, for float16 and bfloat16 activations on a GPU.

Shape letters: O outputs, I inputs, G groups of inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle.nn import quant

from .gpu import has_tensor_cores, is_half

if TYPE_CHECKING:
    from paddle import Tensor

    from .quantized_linear import QuantizedWeight

GROUP_SIZES = (-1, 64, 128)
TILE = 64
"""Inputs that the kernels read together."""
NO_OUTLIERS = 65504.0
"""Largest float16: no activation is above, so that all are rounded, as ``int8_linear`` does it."""
_ORDER_8 = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]
_ORDER_4 = np.arange(32).reshape(4, 8).T.ravel()


@dataclass(frozen=True, slots=True)
class TiledWeight:
    """The codes and scales of a matrix as the kernels of weight-only layers read them."""

    codes: Tensor
    """int8 [O, I], or [O / 2, I] of 4 bits."""
    scales: Tensor
    """[O], or [G, O] with groups; float32."""


def weight_only_obstacle(x_TI: Tensor, weight: QuantizedWeight) -> str:
    """Return what keeps the kernel from doing a call, as half a sentence; empty where nothing does."""
    if not is_half(x_TI):
        return "it computes in 16 bits"
    if weight.zeros_OG is not None:
        return "its codes stand for 0 at 0"
    if weight.group_size not in GROUP_SIZES:
        return f"it has groups of {', '.join(map(str, GROUP_SIZES))}"
    if weight.in_size % TILE or weight.out_size % 4:
        return f"it takes multiples of {TILE} inputs and of 4 outputs"
    return "" if has_tensor_cores() else "its layout is another on a GPU before compute capability 7.5"


def int8_obstacle(x_TI: Tensor, weight: QuantizedWeight, input_scale: float | None) -> str:
    """Return what keeps the kernel of W8A8 from doing a call; empty where nothing does."""
    if not is_half(x_TI):
        return "it computes in 16 bits"
    return "" if input_scale is None else "it measures the scale of each token itself"


def gpu_weight_only_linear(x_TI: Tensor, weight: QuantizedWeight, bias_O: Tensor | None) -> Tensor:
    """Return what ``weight_only_linear`` does, where ``weight_only_obstacle`` found nothing."""
    tiled, dtype = weight.tiled, f"int{weight.bits}"
    y_TO: Tensor = quant.weight_only_linear(
        x_TI, tiled.codes, bias_O, tiled.scales.astype(x_TI.dtype), weight_dtype=dtype,  # type: ignore[arg-type]
        group_size=weight.group_size,  # type: ignore[arg-type]
    )  # fmt: skip
    return y_TO


def gpu_int8_linear(x_TI: Tensor, weight: QuantizedWeight, bias_O: Tensor | None) -> Tensor:
    """Return what ``int8_linear`` does, where ``int8_obstacle`` found nothing."""
    scales_O = weight.scales_OG.reshape([-1]).astype("float32")
    return quant.llm_int8_linear(x_TI, weight.codes, bias_O, scales_O, threshold=NO_OUTLIERS)


def tile(weight: QuantizedWeight) -> TiledWeight:
    """Return a symmetric matrix in the kernels' layout.

    The order of the bytes is that of ``paddle.nn.quant.weight_quantize`` for compute capability 7.5 to 9.0, which
    runs on a CPU as well: a test compares the two. Codes that were found by a search (GPTQ, AWQ) keep their values,
    which ``weight_quantize`` would round again.
    """
    from .quantized_linear import unpack

    codes_IO = unpack(weight).numpy().T
    scales = weight.scales_OG.reshape([-1]) if weight.group_size == -1 else weight.scales_OG.transpose([1, 0])
    packed = _tile_8(codes_IO) if weight.bits == 8 else _tile_4(codes_IO)
    place = weight.codes.place
    return TiledWeight(paddle.to_tensor(packed, place=place), scales.contiguous())


def _tile_8(codes_IO: np.ndarray) -> np.ndarray:
    inputs, outputs = codes_IO.shape
    tiles = (codes_IO.astype(np.int16) + 128).astype(np.uint8).reshape(inputs // TILE, 4, 16, outputs // 2, 2)
    return np.ascontiguousarray(tiles[:, :, _ORDER_8].transpose(3, 0, 4, 1, 2)).reshape(outputs, inputs).view(np.int8)


def _tile_4(codes_IO: np.ndarray) -> np.ndarray:
    inputs, outputs = codes_IO.shape
    tiles = (codes_IO.astype(np.int16) + 8).astype(np.uint8).reshape(inputs // TILE, 2, 32, outputs // 4, 4)
    flat = np.ascontiguousarray(tiles[:, :, _ORDER_4].transpose(3, 0, 4, 1, 2)).reshape(-1)
    return (flat[0::2] | (flat[1::2] << 4)).reshape(outputs // 2, inputs).view(np.int8)
