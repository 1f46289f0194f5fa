"""Matrices as the C++ kernels of decoding read them, and their products.

Shape letters: O outputs, I inputs, G groups of inputs that share a scale, T tokens.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from .native import dense, kernel
from .quantized_linear import BLOCK, SMALLEST_SCALE, unpack

if TYPE_CHECKING:
    from paddle import Tensor

    from .quantized_linear import QuantizedWeight

PANEL = 16
"""Outputs that lie side by side in an integer matrix."""

_FLOAT_KINDS = {("float32", False): 1, ("float32", True): 2, ("bfloat16", False): 3, ("bfloat16", True): 4}
_INTEGER_KINDS = {8: 5, 4: 6}


class Rounding(IntEnum):
    """What integer matrices are multiplied by. Numbers of csrc/matrix.h."""

    FIFTEEN_BITS = 0
    """By block of 32 inputs, whose largest number is met within 3e-5."""
    EIGHT_BITS = 1
    """By block of 32 inputs (``round_blocks``)."""
    EIGHT_BITS_BY_ROW = 2
    """One scale for each token, or for all (``int8_linear``)."""


class MatrixTable(ctypes.Structure):
    """``Matrix`` of csrc/matrix.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("kind", "inputs", "outputs", "group_blocks", "rounding")),
        *((name, ctypes.c_void_p) for name in ("data", "scales", "row_scales", "zeros", "bias")),
        ("input_scale", ctypes.c_double),
    )


@dataclass(frozen=True)
class Matrix:
    """A matrix in the layout of the kernels, and the memory that it points to."""

    table: MatrixTable
    owned: tuple[Any, ...]
    """Tensors and arrays that the table points into."""

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers."""
        return self.table.kind in _INTEGER_KINDS.values()

    @property
    def activations(self) -> tuple[Rounding | None, float]:
        """What the matrix is multiplied by, which must be the same for all that read the same rows.

        How they are rounded, once for all of them (``None``: they are not), and the scale for all tokens (0: none).
        """
        return (Rounding(self.table.rounding) if self.is_integer else None), float(self.table.input_scale)

    @property
    def num_bytes(self) -> int:
        """Read for one product, bias aside."""
        kind, entries = self.table.kind, self.table.inputs * self.table.outputs
        if not self.is_integer:
            return int(entries * (4 if kind < 3 else 2))
        return int(sum(array.nbytes for array in self.owned if isinstance(array, np.ndarray)))

    def use_huge_pages(self) -> None:
        """Move the matrix to pages of 2 MB where the system has them: memory is read up to twice as fast."""
        if not self.is_integer:
            kernel("use_huge_pages")(self.table.data, self.num_bytes)
            return
        for array in self.owned:
            if isinstance(array, np.ndarray):
                kernel("use_huge_pages")(array.ctypes.data, array.nbytes)


def float_matrix(weight: Tensor, bias_O: Tensor | None = None, *, transposed: bool = False) -> Matrix:
    """Describe a float matrix where it lies: nothing is copied.

    Args:
        weight: float32 or bfloat16, [I, O] as in ``nn.Linear``.
        bias_O: float32 or bfloat16, or ``None``.
        transposed: the weight is [O, I], as an embedding that is the head as well.
    """
    weight = dense(weight)
    inputs, outputs = weight.shape[::-1] if transposed else weight.shape
    kind = _FLOAT_KINDS[str(weight.dtype).removeprefix("paddle."), transposed]
    bias = _float_bias(bias_O)
    table = MatrixTable(kind, inputs, outputs, 1, 0, weight.data_ptr(), None, None, None, _address(bias))
    return Matrix(table, (weight, bias))


def why_not_packed(weight: QuantizedWeight) -> str:
    """Return why the kernels cannot read a quantized matrix, as half a sentence; empty where they can."""
    if weight.group_size != -1 and weight.group_size % BLOCK:
        return f"its groups of {weight.group_size} inputs are no multiple of {BLOCK}"
    return "its inputs are sorted by importance" if weight.order_I is not None else ""


def integer_matrix(
    weight: QuantizedWeight,
    bias_O: Tensor | None = None,
    *,
    rounding: Rounding = Rounding.FIFTEEN_BITS,
    input_scale: float | None = None,
) -> Matrix:
    """Lay a quantized matrix out in panels; done once, when a model is loaded.

    Scales become float16 times a power of two of their row: half a step is 2.4e-4 of a scale. One scale a row stays
    float32.

    Args:
        weight: the integers.
        bias_O: float32 or bfloat16, or ``None``.
        rounding: of the activations. By row it is W8A8, whose codes are symmetric and of 8 bits.
        input_scale: of activations rounded by row; ``None``: each token has its own.
    """
    is_w8a8 = rounding == Rounding.EIGHT_BITS_BY_ROW
    assert not is_w8a8 or (weight.bits == 8 and weight.zeros_OG is None), "W8A8 is symmetric, and of 8 bits"
    assert not why_not_packed(weight), why_not_packed(weight)
    codes_OI, outputs, inputs = unpack(weight).numpy(), weight.out_size, weight.in_size
    offset = 128 if weight.bits == 8 else 8
    panels, blocks = -(-outputs // PANEL), -(-inputs // BLOCK)
    padded = np.full([panels * PANEL, blocks * BLOCK], offset, np.uint8)
    padded[:outputs, :inputs] = codes_OI.astype(np.int16) + offset
    # [panel, output, block, quad, 4] -> [panel, block, quad, output, 4]
    data: np.ndarray = padded.reshape([panels, PANEL, blocks, BLOCK // 4, 4]).transpose(0, 2, 3, 1, 4)
    if weight.bits == 4:
        data = data[:, :, :4] | (data[:, :, 4:] << 4)
    data = np.ascontiguousarray(data)
    scales_OG = np.asarray(weight.scales_OG.numpy(), np.float32)
    row_scales_O = _row_scales(scales_OG)
    scales = _panels((scales_OG / row_scales_O[:, None]).astype(np.float16))
    zeros = None
    if weight.zeros_OG is not None:
        zeros = _panels((weight.zeros_OG.numpy().astype(np.int16) + offset).astype(np.uint8))
    bias = _float_bias(bias_O)
    group_blocks = blocks if weight.group_size == -1 else weight.group_size // BLOCK
    arrays = (data, scales, row_scales_O, zeros)
    table = MatrixTable(
        _INTEGER_KINDS[weight.bits], inputs, outputs, group_blocks, rounding,
        *(None if array is None else array.ctypes.data for array in arrays), _address(bias),
        0.0 if input_scale is None else max(input_scale, SMALLEST_SCALE),
    )  # fmt: skip
    return Matrix(table, (*arrays, bias))


def multiply(x_TI: Tensor, matrix: Matrix) -> Tensor:
    """Return ``x W + bias``, float32 [T, O].

    Activations for an integer matrix are rounded as it was made for.

    Args:
        x_TI: float32, on CPU.
        matrix: from ``float_matrix`` or ``integer_matrix``.
    """
    x_TI = dense(x_TI)
    rows, inputs = x_TI.shape
    assert inputs == matrix.table.inputs, f"{inputs} inputs for a matrix of {matrix.table.inputs}"
    y_TO = paddle.empty([rows, matrix.table.outputs], dtype="float32")
    planes = np.empty(rows * -(-inputs // BLOCK) * (2 * BLOCK + 8), np.uint8)
    kernel("multiply")(
        ctypes.addressof(matrix.table), x_TI.data_ptr(), rows, planes.ctypes.data, y_TO.data_ptr()
    )  # fmt: skip
    return y_TO


def _row_scales(scales_OG: np.ndarray) -> np.ndarray:
    if scales_OG.shape[1] == 1:
        return np.where(scales_OG[:, 0] == 0, np.float32(1), scales_OG[:, 0])
    largest_O = np.abs(scales_OG).max(axis=1)
    exponents_O = np.frexp(np.where(largest_O > 0, largest_O, 1))[1]
    powers: np.ndarray = np.ldexp(np.float32(1), exponents_O).astype(np.float32)
    return powers


def _panels(values_OG: np.ndarray) -> np.ndarray:
    """Return [panels, G, 16] of [O, G]."""
    outputs, groups = values_OG.shape
    padded = np.zeros([-(-outputs // PANEL) * PANEL, groups], values_OG.dtype)
    padded[:outputs] = values_OG
    return np.ascontiguousarray(padded.reshape([-1, PANEL, groups]).transpose(0, 2, 1))


def _float_bias(bias_O: Tensor | None) -> Tensor | None:
    return None if bias_O is None else dense(bias_O.detach().astype("float32"))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else int(tensor.data_ptr())
