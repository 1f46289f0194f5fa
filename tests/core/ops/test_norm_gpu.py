from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from llm_run.core.ops import layer_norm, rms_norm, swiglu


def documented_rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float = 1e-5) -> Any:
    assert list(normalized_shape) == [input.shape[-1]] == list(weight.shape)
    inverse = paddle.rsqrt((input * input).mean(-1, keepdim=True) + eps)
    return input * inverse * weight, inverse


def test_norms_and_the_activation_are_handed_over_as_they_are(
    on_gpu: None, stand_in: Any, plain_too: Any, random: Any
) -> None:
    stand_in(F, "rms_norm", documented_rms_norm)
    stand_in(F, "layer_norm", F.layer_norm)
    called = stand_in(F, "swiglu", F.swiglu)
    x, weight, bias = (paddle.to_tensor(random(*shape)) for shape in ((2, 3, 8), (8,), (8,)))
    for compute in (
        lambda: rms_norm(x, weight, eps=1e-5),
        lambda: layer_norm(x, weight, bias, eps=1e-5),
        lambda: swiglu(x, x * 2),
    ):
        found, expected = plain_too(compute)
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert called == ["rms_norm", "layer_norm", "swiglu"]


def test_a_norm_whose_weight_has_another_dtype_is_plain(on_gpu: None, stand_in: Any, random: Any) -> None:
    called = stand_in(F, "rms_norm", documented_rms_norm)
    rms_norm(paddle.to_tensor(random(2, 8)).astype("float64"), paddle.to_tensor(random(8)), eps=1e-5)
    assert called == []
