from __future__ import annotations

import math

import numpy as np
import paddle
import pytest
import torch

from llm_run.core.ops import adamw_update, global_norm

SHAPES = [(3, 5), (7,), (40, 1000), (1,)]


def test_ten_steps_equal_those_of_torch(variant, random):
    starts, decays, scales = [random(*shape) for shape in SHAPES], [0.1, 0.0, 0.3, 0.0], [1.0, 4.0, 0.25, 1.0]
    params = [paddle.nn.Layer().create_parameter(start.shape) for start in starts]
    for param, start in zip(params, starts, strict=True):
        param.set_value(start)
    firsts, seconds = ([paddle.zeros_like(param) for param in params] for _ in range(2))
    theirs = [torch.tensor(start, requires_grad=True) for start in starts]
    groups = [
        {"params": [tensor], "weight_decay": decay, "lr": 0.01 * scale}
        for tensor, decay, scale in zip(theirs, decays, scales, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-6)
    for step in range(1, 11):
        grads = [random(*shape) for shape in SHAPES]
        adamw_update(
            params, [paddle.to_tensor(2 * grad) for grad in grads], firsts, seconds, decays, scales,
            lr=0.01, beta1=0.9, beta2=0.95, eps=1e-6, step=step, grad_scale=0.5,
        )  # fmt: skip
        for tensor, grad in zip(theirs, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        optimizer.step()
    for mine, other in zip(params, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.detach().numpy(), atol=2e-6, rtol=1e-5)
    for mine, other in zip(seconds, theirs, strict=True):
        expected = optimizer.state[other]["exp_avg_sq"].numpy()
        np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-5)


def test_gradients_are_left_alone(variant, random):
    tensors = [paddle.to_tensor(random(9)) for _ in range(4)]
    before = tensors[1].numpy().copy()
    adamw_update(
        *([tensor] for tensor in tensors[:2]), [paddle.zeros([9])], [paddle.zeros([9])], [0.1], [1.0],
        lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, step=1, grad_scale=0.5,
    )  # fmt: skip
    np.testing.assert_array_equal(tensors[1].numpy(), before)


def test_the_norm_is_that_of_all_tensors_joined(variant, random):
    arrays = [random(*shape) for shape in SHAPES]
    joined = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    assert global_norm([paddle.to_tensor(array) for array in arrays]) == pytest.approx(np.linalg.norm(joined), rel=1e-6)
    assert global_norm([]) == 0.0


def test_the_norm_of_what_is_not_finite_is_not_finite(variant, random):
    for bad in (np.nan, np.inf):
        array = random(50)
        array[31] = bad
        assert not np.isfinite(global_norm([paddle.to_tensor(random(5)), paddle.to_tensor(array)]))


def test_the_norm_of_more_tensors_than_a_small_array_holds_is_exact() -> None:
    # Hundreds of addresses once outlived the array that held them: small models never showed it.
    arrays = [np.random.default_rng(number).standard_normal(64).astype(np.float32) for number in range(600)]
    expected = math.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in arrays))
    for _ in range(20):
        assert global_norm([paddle.to_tensor(array) for array in arrays]) == pytest.approx(expected, rel=1e-6)
