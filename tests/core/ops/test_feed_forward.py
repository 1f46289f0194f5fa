from __future__ import annotations

import numpy as np
import paddle
import pytest
import torch

from llm_run.core.ops import gelu, relu, swiglu


@pytest.mark.parametrize("shape", [(3,), (5, 8), (2, 3, 333)])
def test_swiglu_and_its_gradients_equal_those_of_torch(variant, random, learnt, shape):
    gate, up, dy = 4 * random(*shape), random(*shape), random(*shape)
    ours = [learnt(gate), learnt(up)]
    y = swiglu(*ours)
    y.backward(paddle.to_tensor(dy))
    theirs = [torch.tensor(gate, requires_grad=True), torch.tensor(up, requires_grad=True)]
    expected = torch.nn.functional.silu(theirs[0]) * theirs[1]
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), atol=1e-5, rtol=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-5, rtol=1e-5)


def test_swiglu_of_extremes_is_finite_and_of_nan_is_nan(variant):
    gate = paddle.to_tensor(np.array([-1e4, -90, 0, 90, 1e4, np.nan], np.float32))
    np.testing.assert_allclose(swiglu(gate, paddle.ones([6])).numpy(), [0, 0, 0, 90, 1e4, np.nan], atol=1e-6)


@pytest.mark.parametrize("tanh", [True, False])
def test_gelu_equals_that_of_torch(random, tanh):
    x = 3 * random(50)
    expected = torch.nn.functional.gelu(torch.tensor(x), approximate="tanh" if tanh else "none")
    np.testing.assert_allclose(gelu(paddle.to_tensor(x), tanh=tanh).numpy(), expected.numpy(), atol=1e-6)


def test_relu_cuts_at_zero():
    assert relu(paddle.to_tensor([-1.0, 0.0, 2.0])).tolist() == [0.0, 0.0, 2.0]
