from __future__ import annotations

import numpy as np
import paddle
import pytest
import torch

from llm_run.core.ops import layer_norm, rms_norm

SHAPES = [(1, 8), (3, 5, 24), (2, 7, 3, 13), (70, 512)]


@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm_and_its_gradients_equal_those_of_torch(variant, random, learnt, shape):
    x, weight, dy = random(*shape), random(shape[-1]), random(*shape)
    ours = [learnt(x), learnt(weight)]
    y = rms_norm(*ours, eps=1e-5)
    y.backward(paddle.to_tensor(dy))
    theirs = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (x, weight)]
    expected = torch.nn.functional.rms_norm(theirs[0], shape[-1:], theirs[1], 1e-5)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), atol=2e-6, rtol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_layer_norm_and_its_gradients_equal_those_of_torch(variant, random, learnt, shape, has_bias):
    arrays = [random(*shape) + 3, random(shape[-1]), random(shape[-1])][: 3 if has_bias else 2]
    dy = random(*shape)
    ours = [learnt(array) for array in arrays]
    y = layer_norm(ours[0], ours[1], ours[2] if has_bias else None, eps=1e-5)
    y.backward(paddle.to_tensor(dy))
    theirs = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    expected = torch.nn.functional.layer_norm(theirs[0], shape[-1:], *theirs[1:], eps=1e-5)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), atol=1e-5, rtol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        # Paddle's mean, in the plain variant, is off by 3e-6 here.
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=5e-5, rtol=1e-5)


def test_a_frozen_weight_gets_no_gradient(variant, random, learnt):
    x, weight = learnt(random(2, 16)), paddle.to_tensor(random(16))
    rms_norm(x, weight, eps=1e-6).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


def test_norms_read_tensors_that_are_not_contiguous(variant, random):
    x, weight = random(6, 4), random(6)
    turned = paddle.to_tensor(x).transpose([1, 0])
    expected = rms_norm(paddle.to_tensor(np.ascontiguousarray(x.T)), paddle.to_tensor(weight), eps=1e-6)
    np.testing.assert_array_equal(rms_norm(turned, paddle.to_tensor(weight), eps=1e-6).numpy(), expected.numpy())


def test_rms_norm_of_float64_is_float64_and_of_large_numbers_finite(variant):
    x = paddle.full([2, 4], 1e15, dtype="float32")
    assert rms_norm(x, paddle.ones([4]), eps=1e-6).numpy() == pytest.approx(1.0)
    assert rms_norm(x.astype("float64"), paddle.ones([4], dtype="float64"), eps=1e-6).dtype == paddle.float64
