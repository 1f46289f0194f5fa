"""Matrices of 4-bit NormalFloat: sixteen values that a normal distribution takes about equally often.

Shape letters: O outputs, I inputs, N blocks of J neighbouring weights that share a scale, M groups of such scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import paddle

if TYPE_CHECKING:
    from paddle import Tensor

VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""What the codes 0 to 15 stand for. Source: Dettmers et al. 2023, arXiv:2305.14314, appendix E."""
GROUP = 256
"""Scales that share a scale of their own. Source: the same, section 3 (double quantization)."""
LARGEST = 127


@dataclass(frozen=True)
class Nf4Weight:
    """A matrix [O, I] of codes, one row after the other, in blocks that may go from one row to the next."""

    codes: Tensor
    """uint8, two codes a byte, the first in the high half; filled up to whole blocks."""
    scales_N: Tensor
    """Largest absolute weight of each block, float32; int8 codes of it where scales are rounded as well."""
    shape: tuple[int, int]
    """O, I."""
    block_size: int
    scale_of_scales_M: Tensor | None = None
    """float32; ``None``: scales are numbers themselves."""
    offset: float = 0.0
    """What is added to a scale that was rounded: the mean of all."""

    @property
    def num_bytes(self) -> int:
        """In memory, with scales."""
        tensors = (self.codes, self.scales_N, self.scale_of_scales_M)
        return sum(int(tensor.size * tensor.element_size()) for tensor in tensors if tensor is not None)


def round_to_nf4(weight_OI: np.ndarray, block_size: int, *, double: bool = False) -> Nf4Weight:
    """Round a matrix to the nearest values, each block divided by its largest absolute weight.

    Args:
        weight_OI: float32.
        block_size: neighbouring weights that share a scale; even.
        double: round the scales to 8 bits as well, which saves 0.37 bits a weight in blocks of 64.

    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3.
    """
    missing = -weight_OI.size % block_size
    blocks_NJ = np.pad(weight_OI.astype(np.float32).reshape(-1), (0, missing)).reshape(-1, block_size)
    scales_N = np.abs(blocks_NJ).max(axis=1)
    packed, offset = _rounded(scales_N) if double else (None, 0.0)
    known_N = scales_N if packed is None else _widened(*packed, offset)
    unit_NJ = np.divide(blocks_NJ, known_N[:, None], out=np.zeros_like(blocks_NJ), where=known_N[:, None] > 0)
    codes = np.searchsorted(_middles(), unit_NJ.reshape(-1)).astype(np.uint8)
    scales, scale_of_scales = (scales_N, None) if packed is None else packed
    return Nf4Weight(
        codes=paddle.to_tensor(codes[0::2] << 4 | codes[1::2]),
        scales_N=paddle.to_tensor(scales),
        shape=(weight_OI.shape[0], weight_OI.shape[1]),
        block_size=block_size,
        scale_of_scales_M=None if scale_of_scales is None else paddle.to_tensor(scale_of_scales),
        offset=offset,
    )


def dequantize_nf4(weight: Nf4Weight) -> Tensor:
    """Return the float32 matrix [O, I] that the codes stand for."""
    pairs = paddle.gather(_pairs(), weight.codes.astype("int32"))
    values: Tensor = pairs.reshape([-1, weight.block_size]) * _scales(weight).unsqueeze(-1)
    num_outputs, num_inputs = weight.shape
    flat = values.flatten()
    size = num_outputs * num_inputs
    return (flat if flat.shape[0] == size else flat[:size]).reshape([num_outputs, num_inputs])


def _scales(weight: Nf4Weight) -> Tensor:
    if weight.scale_of_scales_M is None:
        return weight.scales_N
    count = int(weight.scales_N.shape[0])
    factors_N = paddle.repeat_interleave(weight.scale_of_scales_M, GROUP)[:count]
    scales_N: Tensor = weight.scales_N.astype("float32") * factors_N + weight.offset
    return scales_N


def _rounded(scales_N: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Return 8-bit codes of scales, what a code of 1 stands for in each group, and the mean that was subtracted."""
    offset = float(scales_N.mean(dtype=np.float64))
    centred = np.pad(scales_N - np.float32(offset), (0, -len(scales_N) % GROUP)).reshape(-1, GROUP)
    factors_M = (np.abs(centred).max(axis=1) / LARGEST).astype(np.float32)
    safe_M1 = np.where(factors_M > 0, factors_M, np.float32(1.0))[:, None]
    codes = np.rint(centred / safe_M1).astype(np.int8).reshape(-1)[: len(scales_N)]
    return (codes, factors_M), offset


def _widened(codes_N: np.ndarray, factors_M: np.ndarray, offset: float) -> np.ndarray:
    scales_N: np.ndarray = codes_N.astype(np.float32) * np.repeat(factors_M, GROUP)[: len(codes_N)] + np.float32(offset)
    return scales_N


def _middles() -> np.ndarray:
    values = np.array(VALUES, dtype=np.float32)
    middles: np.ndarray = (values[1:] + values[:-1]) / 2
    return middles


@cache
def _pairs() -> Tensor:
    """Return what every byte stands for, [256, 2]."""
    values, byte = np.array(VALUES, dtype=np.float32), np.arange(256)
    return paddle.to_tensor(np.stack([values[byte >> 4], values[byte & 15]], axis=1))
