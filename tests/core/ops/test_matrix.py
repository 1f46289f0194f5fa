from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
import pytest

from llm_run.core.ops import QuantizedWeight, dequantize, int8_linear, round_blocks, weight_only_linear
from llm_run.core.ops.matrix import Rounding, float_matrix, integer_matrix, multiply, why_not_packed

ROWS = (1, 2, 3, 4, 5, 7, 13, 33, 64)
PACKED_ERROR = 5e-4
"""Of a product, relative in the mean square: scales in float16, and activations of 15 bits."""


def quantized(bits: int, outputs: int, inputs: int, group_size: int, *, has_zeros: bool = False) -> QuantizedWeight:
    source = np.random.default_rng(3)
    limit = 2 ** (bits - 1)
    codes_OI = source.integers(-limit, limit, [outputs, inputs]).astype(np.int8)
    groups = 1 if group_size == -1 else inputs // group_size
    if bits == 4:
        halves = np.pad((codes_OI + 8).astype(np.uint8), ((0, 0), (0, inputs % 2)))
        codes_OI = halves[:, 0::2] | (halves[:, 1::2] << 4)
    zeros_OG = source.integers(-6, 7, [outputs, groups]).astype(np.int8)
    return QuantizedWeight(
        codes=paddle.to_tensor(codes_OI),
        scales_OG=paddle.to_tensor((source.random([outputs, groups]) * 0.01 + 1e-4).astype(np.float32)),
        zeros_OG=paddle.to_tensor(zeros_OG) if has_zeros else None,
        bits=bits, in_size=inputs, group_size=group_size,
    )  # fmt: skip


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(100, 37), (96, 64), (517, 300), (20, 4100), (8, 1)])
def test_float_matrices_of_odd_shapes_multiply_as_paddle_does(instructions, random, dtype, transposed, inputs, outputs):
    weight = paddle.to_tensor(random(*((outputs, inputs) if transposed else (inputs, outputs)))).astype(dtype)
    bias_O = paddle.to_tensor(random(outputs))
    matrix = float_matrix(weight, bias_O, transposed=transposed)
    for rows in ROWS:
        x_TI = paddle.to_tensor(random(rows, inputs))
        expected = paddle.matmul(x_TI, weight.astype("float32"), transpose_y=transposed) + bias_O
        assert relative(multiply(x_TI, matrix).numpy(), expected.numpy()) < 1e-6, rows


@pytest.mark.parametrize(
    ("bits", "outputs", "inputs", "group_size", "has_zeros"),
    [
        (8, 37, 100, -1, False), (8, 64, 96, 32, False), (8, 130, 256, 64, True), (8, 16, 31, -1, True),
        (4, 37, 99, -1, False), (4, 50, 128, 32, True), (4, 48, 256, 128, False), (4, 17, 192, 64, False),
    ],
)  # fmt: skip
def test_integer_matrices_multiply_as_their_dequantized_ones_do(
    instructions, random, bits, outputs, inputs, group_size, has_zeros
):
    weight = quantized(bits, outputs, inputs, group_size, has_zeros=has_zeros)
    bias_O = paddle.to_tensor(random(outputs))
    matrix, dense_OI = integer_matrix(weight, bias_O), dequantize(weight).numpy().astype(np.float64)
    for rows in ROWS:
        x_TI = random(rows, inputs)
        found = multiply(paddle.to_tensor(x_TI), matrix).numpy()
        assert relative(found, x_TI @ dense_OI.T + bias_O.numpy()) < PACKED_ERROR, rows


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rounding", [Rounding.FIFTEEN_BITS, Rounding.EIGHT_BITS])
def test_the_largest_codes_and_activations_do_not_overflow(instructions, bits, rounding):
    inputs = 4096
    weight = quantized(bits, 16, inputs, -1)
    extreme = np.full([16, inputs], -128, np.int8) if bits == 8 else np.zeros([16, inputs // 2], np.uint8)
    weight = QuantizedWeight(paddle.to_tensor(extreme), weight.scales_OG, None, bits, inputs, -1)
    x_TI = np.full([4, inputs], 3.0, np.float32)
    x_TI[1] = -3.0
    expected = x_TI @ dequantize(weight).numpy().T
    found = multiply(paddle.to_tensor(x_TI), integer_matrix(weight, rounding=rounding)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("bits", "outputs", "inputs", "group_size", "has_zeros"),
    [
        (8, 37, 100, -1, False), (8, 130, 256, 64, True), (4, 37, 99, -1, False), (4, 50, 128, 32, True),
        (4, 48, 256, 128, False),
    ],
)  # fmt: skip
def test_activations_of_8_bits_by_block_give_what_the_reference_gives(
    instructions, random, bits, outputs, inputs, group_size, has_zeros
):
    weight = quantized(bits, outputs, inputs, group_size, has_zeros=has_zeros)
    bias_O = paddle.to_tensor(random(outputs))
    matrix = integer_matrix(weight, bias_O, rounding=Rounding.EIGHT_BITS)
    for rows in ROWS:
        x_TI = paddle.to_tensor(random(rows, inputs))
        expected = weight_only_linear(round_blocks(x_TI), weight, bias_O).numpy()
        assert relative(multiply(x_TI, matrix).numpy(), expected) < PACKED_ERROR, rows


def test_numbers_half_way_between_two_codes_are_rounded_as_the_reference_rounds_them(instructions, random):
    """A scale for each output is kept as it is: but for the codes there is nothing to differ in."""
    weight = quantized(8, 37, 96, -1)
    matrix = integer_matrix(weight, rounding=Rounding.EIGHT_BITS)
    x_TI = np.floor(60 * random(50, 96)).clip(-126, 126) + 0.5
    x_TI[:, ::32] = 127
    expected = weight_only_linear(round_blocks(paddle.to_tensor(x_TI)), weight).numpy()
    assert relative(multiply(paddle.to_tensor(x_TI), matrix).numpy(), expected) < 1e-6


@pytest.mark.parametrize("input_scale", [None, 0.02])
def test_8_bit_activations_give_what_the_reference_gives(instructions, random, input_scale):
    weight, bias_O = quantized(8, 37, 100, -1), paddle.to_tensor(random(37))
    matrix = integer_matrix(weight, bias_O, rounding=Rounding.EIGHT_BITS_BY_ROW, input_scale=input_scale)
    for rows in ROWS:
        x_TI = paddle.to_tensor(random(rows, 100))
        expected = int8_linear(x_TI, weight, bias_O, input_scale=input_scale).numpy()
        assert relative(multiply(x_TI, matrix).numpy(), expected) < 1e-6, rows


@pytest.mark.parametrize("rounding", [Rounding.FIFTEEN_BITS, Rounding.EIGHT_BITS])
def test_a_row_of_activations_does_not_depend_on_its_neighbours(
    instructions, random: Callable[..., np.ndarray], rounding
):
    matrix, x_TI = integer_matrix(quantized(4, 48, 128, 32), rounding=rounding), random(9, 128)
    together = multiply(paddle.to_tensor(x_TI), matrix).numpy()
    alone = [multiply(paddle.to_tensor(x_TI[row : row + 1]), matrix).numpy()[0] for row in range(9)]
    assert np.array_equal(together, np.stack(alone))


@pytest.mark.parametrize("rounding", [Rounding.FIFTEEN_BITS, Rounding.EIGHT_BITS])
def test_zeros_give_the_bias_and_numbers_that_are_none_stay_so(instructions, random, rounding):
    bias_O = paddle.to_tensor(random(20))
    matrix = integer_matrix(quantized(8, 20, 64, 32), bias_O, rounding=rounding)
    x_TI = np.zeros([3, 64], np.float32)
    x_TI[1, 40], x_TI[2, 3] = np.nan, -np.inf
    found = multiply(paddle.to_tensor(x_TI), matrix).numpy()
    np.testing.assert_allclose(found[0], bias_O.numpy(), rtol=1e-6)
    assert np.isnan(found[1:]).all()


def test_powers_of_two_of_a_row_keep_small_scales_exact(instructions):
    weight = quantized(8, 16, 64, 32)
    scales = np.float32(2.0) ** np.arange(-30, 2).reshape(16, 2).astype(np.float32)
    weight = QuantizedWeight(weight.codes, paddle.to_tensor(scales), None, 8, 64, 32)
    x_TI = np.ones([1, 64], np.float32)
    expected = x_TI @ dequantize(weight).numpy().T
    np.testing.assert_allclose(multiply(paddle.to_tensor(x_TI), integer_matrix(weight)).numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize("bits", [None, 8])
def test_huge_pages_hold_the_same_numbers(kernels, random, bits):
    weight = paddle.to_tensor(random(1024, 2100))
    matrix = float_matrix(weight) if bits is None else integer_matrix(quantized(bits, 2100, 1024, 32))
    x_TI = paddle.to_tensor(random(1, 1024))
    before = multiply(x_TI, matrix).numpy()
    matrix.use_huge_pages()
    assert np.array_equal(multiply(x_TI, matrix).numpy(), before)


def test_what_cannot_be_packed_is_told():
    assert why_not_packed(quantized(8, 4, 96, 48)) == "its groups of 48 inputs are no multiple of 32"
    sorted_weight = QuantizedWeight(
        *(getattr(quantized(8, 4, 64, 32), name) for name in ("codes", "scales_OG", "zeros_OG")),
        bits=8, in_size=64, group_size=32, order_I=paddle.arange(64),
    )  # fmt: skip
    assert why_not_packed(sorted_weight) == "its inputs are sorted by importance"
    assert why_not_packed(quantized(4, 4, 64, 32)) == ""
