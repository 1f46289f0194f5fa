from __future__ import annotations

import numpy as np
import paddle
import pytest
import torch

from llm_run.core.ops import linear_cross_entropy


class Model(paddle.nn.Layer):
    """A head among other parameters, as in a causal language model."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.body = paddle.nn.Linear(3, 3)
        self.lm_head = paddle.nn.Linear(*weight.shape)
        self.lm_head.weight.set_value(weight)
        self.lm_head.bias.set_value(bias)

    def head(self, hidden: paddle.Tensor) -> paddle.Tensor:
        return self.lm_head(hidden)


@pytest.fixture
def labels() -> np.ndarray:
    chosen = np.random.default_rng(1).integers(0, 77, (3, 11))
    chosen[0, :4] = chosen[2, 10] = -100
    return chosen


@pytest.mark.parametrize("chunk_tokens", [1, 4, 10, 33, 1024])
def test_loss_and_gradients_equal_those_of_torch(variant, random, learnt, labels, chunk_tokens):
    hidden, weight, bias = random(3, 11, 16), random(16, 77), random(77)
    ours, model = learnt(hidden), Model(weight, bias)
    loss, count = linear_cross_entropy(ours, model.head, paddle.to_tensor(labels), chunk_tokens=chunk_tokens)
    (loss / 4).backward()
    theirs = [torch.tensor(array, requires_grad=True) for array in (hidden, weight, bias)]
    logits = (theirs[0] @ theirs[1] + theirs[2]).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels).flatten(), reduction="sum")
    (expected / 4).backward()
    assert count == 28
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, other in zip((ours, model.lm_head.weight, model.lm_head.bias), theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-5, rtol=1e-5)
    assert model.body.weight.grad is None


def test_without_gradients_the_loss_is_the_same(variant, random, labels):
    hidden, model = paddle.to_tensor(random(3, 11, 16)), Model(random(16, 77), random(77))
    loss, _ = linear_cross_entropy(hidden, model.head, paddle.to_tensor(labels), chunk_tokens=7)
    with paddle.no_grad():
        again, count = linear_cross_entropy(hidden, model.head, paddle.to_tensor(labels), chunk_tokens=7)
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)
    assert again.stop_gradient
    assert count == 28


def test_gradients_add_up_over_two_calls(variant, random, learnt, labels):
    hidden, model = learnt(random(3, 11, 16)), Model(random(16, 77), random(77))
    for _ in range(2):
        linear_cross_entropy(hidden, model.head, paddle.to_tensor(labels))[0].backward()
    twice = model.lm_head.weight.grad.numpy()
    model.clear_gradients()
    linear_cross_entropy(hidden, model.head, paddle.to_tensor(labels))[0].backward()
    np.testing.assert_allclose(twice, 2 * model.lm_head.weight.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_a_tied_embedding_gets_the_gradients_of_both_its_uses(variant, random, labels):
    table = paddle.nn.Embedding(77, 16)
    ids = paddle.to_tensor(np.abs(labels) % 77)

    def head(hidden: paddle.Tensor) -> paddle.Tensor:
        return paddle.matmul(hidden, table.weight, transpose_y=True)

    loss, _ = linear_cross_entropy(table(ids), head, paddle.to_tensor(labels), parameters=[table.weight])
    loss.backward()
    weight = torch.tensor(table.weight.numpy(), requires_grad=True)
    hidden = torch.nn.functional.embedding(torch.tensor(ids.numpy()), weight)
    logits = (hidden @ weight.T).flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels).flatten(), reduction="sum").backward()
    np.testing.assert_allclose(table.weight.grad.numpy(), weight.grad.numpy(), atol=1e-5, rtol=1e-4)


def test_a_frozen_head_still_passes_gradients_to_hidden(variant, random, learnt, labels):
    hidden, model = learnt(random(3, 11, 16)), Model(random(16, 77), random(77))
    for parameter in model.parameters():
        parameter.stop_gradient = True
    linear_cross_entropy(hidden, model.head, paddle.to_tensor(labels))[0].backward()
    assert np.abs(hidden.grad.numpy()).sum() > 0
    assert model.lm_head.weight.grad is None


def test_no_supervised_token_is_a_loss_of_zero(variant, random, learnt):
    hidden, model = learnt(random(1, 4, 16)), Model(random(16, 77), random(77))
    loss, count = linear_cross_entropy(hidden, model.head, paddle.full([1, 4], -100, dtype="int64"))
    loss.backward()
    assert (loss.item(), count) == (0.0, 0)
    assert not hidden.grad.numpy().any()


def test_nan_in_one_hidden_state_makes_the_loss_nan(variant, random, learnt, labels):
    hidden = random(3, 11, 16)
    hidden[1, 5, 2] = np.nan
    loss, _ = linear_cross_entropy(learnt(hidden), Model(random(16, 77), random(77)).head, paddle.to_tensor(labels))
    assert np.isnan(loss.item())


def test_a_label_outside_the_vocabulary_is_an_error(kernels, random, learnt):
    said = "a label is neither -100 nor one of 77 tokens"
    with pytest.raises(ValueError, match=said):
        linear_cross_entropy(
            learnt(random(1, 2, 16)), Model(random(16, 77), random(77)).head, paddle.to_tensor([[3, 77]])
        )


def test_a_bare_function_needs_its_parameters(random, learnt):
    with pytest.raises(TypeError, match=r"head is neither a Layer nor a method of one\. Pass its parameters="):
        linear_cross_entropy(learnt(random(1, 2, 16)), lambda hidden: hidden, paddle.to_tensor([[1, 2]]))
