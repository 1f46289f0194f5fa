"""The plain reference of quantized linear layers, held against numpy that is written from the layout's description."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from llm_run.core.ops import QuantizedWeight, dequantize, int8_linear, round_blocks, weight_only_linear
from llm_run.core.ops.quantized_linear import unpack

OUT, IN = 7, 24


def nibbles(codes_OI: np.ndarray) -> np.ndarray:
    """Two codes to a byte, one by one."""
    packed = np.zeros((codes_OI.shape[0], (codes_OI.shape[1] + 1) // 2), dtype=np.uint8)
    for row, column in np.ndindex(*codes_OI.shape):
        packed[row, column // 2] |= np.uint8((int(codes_OI[row, column]) + 8) << (4 * (column % 2)))
    return packed


def drawn(bits: int, group: int, *, zeros: bool, in_size: int = IN) -> tuple[QuantizedWeight, np.ndarray]:
    """A random weight, and the matrix that it stands for."""
    random = np.random.default_rng(bits + group + in_size)
    limit = 1 << (bits - 1)
    codes = random.integers(-limit, limit, [OUT, in_size]).astype(np.int8)
    groups = 1 if group == -1 else in_size // group
    scales = random.uniform(0.01, 0.1, [OUT, groups]).astype(np.float32)
    zero = random.integers(-3, 4, [OUT, groups]).astype(np.int8) if zeros else np.zeros([OUT, groups], np.int8)
    matrix = np.empty([OUT, in_size], np.float32)
    for row, column in np.ndindex(OUT, in_size):
        at = 0 if group == -1 else column // group
        matrix[row, column] = (float(codes[row, column]) - float(zero[row, at])) * scales[row, at]
    weight = QuantizedWeight(
        codes=paddle.to_tensor(codes if bits == 8 else nibbles(codes)),
        scales_OG=paddle.to_tensor(scales),
        zeros_OG=paddle.to_tensor(zero) if zeros else None,
        bits=bits,
        in_size=in_size,
        group_size=group,
    )
    assert np.array_equal(unpack(weight).numpy(), codes)
    return weight, matrix


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("group", "in_size"), [(-1, 24), (8, 24), (-1, 23)])
@pytest.mark.parametrize("zeros", [False, True])
def test_codes_stand_for_their_distance_from_zero_times_the_scale_of_their_group(
    bits: int, group: int, in_size: int, zeros: bool
) -> None:
    weight, matrix_OI = drawn(bits, group, zeros=zeros, in_size=in_size)
    assert np.array_equal(dequantize(weight).numpy(), matrix_OI)
    x_TI = np.random.default_rng(5).normal(size=[2, 3, in_size]).astype(np.float32)
    bias_O = np.arange(OUT, dtype=np.float32)
    y_TO = weight_only_linear(paddle.to_tensor(x_TI), weight, paddle.to_tensor(bias_O)).numpy()
    assert np.abs(y_TO - (x_TI @ matrix_OI.T + bias_O)).max() < 1e-5


def test_columns_that_are_sorted_by_group_meet_their_own_inputs() -> None:
    weight, sorted_OI = drawn(4, 8, zeros=True)
    order_I = np.random.default_rng(0).permutation(IN)
    permuted = QuantizedWeight(**{**vars(weight), "order_I": paddle.to_tensor(order_I)})
    matrix_OI = np.empty_like(sorted_OI)
    matrix_OI[:, order_I] = sorted_OI
    assert np.array_equal(dequantize(permuted).numpy(), matrix_OI)
    x_TI = np.random.default_rng(6).normal(size=[4, IN]).astype(np.float32)
    y_TO = weight_only_linear(paddle.to_tensor(x_TI), permuted).numpy()
    assert np.abs(y_TO - x_TI @ matrix_OI.T).max() < 1e-5


@pytest.mark.parametrize("input_scale", [0.02, None])
def test_activations_are_rounded_to_8_bits_by_tensor_or_by_token(input_scale: float | None) -> None:
    weight, matrix_OI = drawn(8, -1, zeros=False)
    x_TI = np.random.default_rng(7).normal(size=[5, IN]).astype(np.float32)
    x_TI[2] = 0.0
    step_T1 = np.full([5, 1], input_scale) if input_scale else np.abs(x_TI).max(axis=1, keepdims=True) / 127
    codes_TI = np.clip(np.rint(x_TI / np.maximum(step_T1, 1e-8)), -127, 127)
    expected_TO = (codes_TI * step_T1) @ matrix_OI.T
    y_TO = int8_linear(paddle.to_tensor(x_TI), weight, input_scale=input_scale).numpy()
    assert np.abs(y_TO - expected_TO).max() < 1e-5
    assert np.abs(y_TO - x_TI @ matrix_OI.T).max() > 1e-4


def test_gradients_reach_the_inputs_through_integer_weights() -> None:
    weight, matrix_OI = drawn(8, -1, zeros=False)
    x_TI = paddle.ones([2, IN])
    x_TI.stop_gradient = False
    weight_only_linear(x_TI, weight).sum().backward()
    assert np.abs(x_TI.grad.numpy() - matrix_OI.sum(axis=0)).max() < 1e-5


def test_4_bits_take_half_the_bytes_of_8() -> None:
    eight, four = drawn(8, -1, zeros=False)[0], drawn(4, -1, zeros=False)[0]
    assert (eight.num_bytes, four.num_bytes) == (OUT * IN + 4 * OUT, OUT * IN // 2 + 4 * OUT)


def test_blocks_of_activations_are_rounded_as_ggufs_own_package_rounds_them() -> None:
    quants = pytest.importorskip("gguf.quants", reason="no gguf package to compare with")
    x_TI = np.random.default_rng(8).normal(size=[6, 96]).astype(np.float32)
    x_TI[2, 32:64] = 0
    blocks = quants.quantize(x_TI, quants.GGMLQuantizationType.Q8_0).reshape([6, 3, 34])
    codes_TBI = blocks[..., 2:].view(np.int8).astype(np.float32)
    scales_TB1 = np.abs(x_TI.reshape([6, 3, 32])).max(axis=-1, keepdims=True) / 127  # the file's are of 16 bits
    expected = (codes_TBI * scales_TB1).reshape([6, 96])
    np.testing.assert_allclose(round_blocks(paddle.to_tensor(x_TI)).numpy(), expected, rtol=1e-6)


def test_a_short_last_block_of_activations_has_a_scale_of_its_own() -> None:
    x_TI = np.random.default_rng(9).normal(size=[2, 3, 40]).astype(np.float32)
    x_TI[..., 32:] *= 1e-3
    found = round_blocks(paddle.to_tensor(x_TI)).numpy()
    parts = [round_blocks(paddle.to_tensor(part)).numpy() for part in (x_TI[..., :32], x_TI[..., 32:])]
    assert np.array_equal(found, np.concatenate(parts, axis=-1))
    assert np.abs(found - x_TI)[..., 32:].max() < 1e-5
