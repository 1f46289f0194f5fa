from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import quant

from llm_run.core.ops import QuantizedWeight, int8_linear, weight_only_linear

KNOWN: dict[bytes, np.ndarray] = {}
"""Codes [I, O] by their bytes in the kernels' layout, which ``weight_quantize`` has made."""


def documented_weight_only_linear(
    x: Any, weight: Any, bias: Any = None, weight_scale: Any = None, weight_dtype: str = "int8", arch: Any = None,
    group_size: int = -1,
) -> Any:  # fmt: skip
    codes_IO, scales = KNOWN[weight.numpy().tobytes()], weight_scale.numpy()
    scales_IO = scales[None] if group_size == -1 else np.repeat(scales, group_size, axis=0)
    y = x @ paddle.to_tensor((codes_IO * scales_IO).astype(np.float32))
    return y if bias is None else y + bias


def documented_llm_int8_linear(
    x: Any, weight: Any, bias: Any = None, weight_scale: Any = None, threshold: float = 6.0
) -> Any:
    """Dettmers et al. 2022, arXiv:2208.07339: inputs below the threshold in 8 bits, scaled by token and output."""
    assert np.abs(x.numpy()).max() < threshold
    scale = np.abs(x.numpy()).max(-1, keepdims=True) / 127
    codes = np.round(x.numpy() / scale)
    y = paddle.to_tensor(
        (codes @ weight.numpy().astype(np.float32).T * scale * weight_scale.numpy()).astype(np.float32)
    )
    return y if bias is None else y + bias


def weight(codes_OI: np.ndarray, scales_OG: np.ndarray, bits: int, group_size: int) -> QuantizedWeight:
    codes = codes_OI
    if bits == 4:
        halves = (codes_OI + 8).astype(np.uint8)
        codes = halves[:, 0::2] | (halves[:, 1::2] << 4)
    return QuantizedWeight(
        paddle.to_tensor(codes), paddle.to_tensor(scales_OG), None, bits, codes_OI.shape[1], group_size
    )


@pytest.mark.parametrize(("bits", "group_size"), [(8, -1), (4, -1), (8, 64), (4, 128)])
def test_integers_are_laid_out_as_paddle_itself_lays_them_out(
    on_gpu: None, stand_in: Any, plain_too: Any, random: Any, bits: int, group_size: int
) -> None:
    called = stand_in(quant, "weight_only_linear", documented_weight_only_linear)
    inputs, outputs, largest = 128, 32, 127 if bits == 8 else 7
    codes_OI = np.random.default_rng(0).integers(-largest, largest + 1, [outputs, inputs]).astype(np.int8)
    width = inputs if group_size == -1 else group_size
    codes_OI[:, ::width] = largest  # the scale of each group is then 1: a matrix of codes is its own quantization
    made, _ = quant.weight_quantize(
        paddle.to_tensor(codes_OI.T.astype(np.float32)).astype("float16"), algo=f"weight_only_int{bits}", arch=80,
        group_size=group_size,
    )  # fmt: skip
    scales_OG = np.abs(random(outputs, inputs // width)) + 0.1
    quantized = weight(codes_OI, scales_OG, bits, group_size)
    assert np.array_equal(quantized.tiled.codes.numpy(), made.numpy())
    KNOWN[made.numpy().tobytes()] = codes_OI.T
    x, bias = paddle.to_tensor(random(3, inputs)), paddle.to_tensor(random(outputs))
    found, expected = plain_too(lambda: weight_only_linear(x, quantized, bias))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert called == ["weight_only_linear"]


def test_codes_with_activations_in_8_bits_are_handed_over_as_they_are(
    on_gpu: None, stand_in: Any, plain_too: Any, random: Any
) -> None:
    called = stand_in(quant, "llm_int8_linear", documented_llm_int8_linear)
    codes_OI = np.random.default_rng(0).integers(-127, 128, [8, 64]).astype(np.int8)
    quantized = weight(codes_OI, np.abs(random(8, 1)) + 0.1, 8, -1)
    x = paddle.to_tensor(random(3, 64))
    found, expected = plain_too(lambda: int8_linear(x, quantized, None, input_scale=None))
    int8_linear(x, quantized, None, input_scale=0.05)  # a scale measured beforehand is not what the kernel does
    assert called == ["llm_int8_linear"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_matrix_of_an_odd_size_is_plain(on_gpu: None, stand_in: Any, random: Any) -> None:
    called = stand_in(quant, "weight_only_linear", documented_weight_only_linear)
    codes_OI = np.zeros([8, 96], np.int8)
    weight_only_linear(paddle.to_tensor(random(2, 96)), weight(codes_OI, np.ones([8, 1], np.float32), 8, -1))
    assert called == []
