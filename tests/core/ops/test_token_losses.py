from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
import torch

from llm_run.core.ops import token_losses

TOKENS, HIDDEN, VOCAB = 23, 8, 31


class Model(paddle.nn.Layer):
    """A head, and parameters that the head does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.body = paddle.nn.Linear(HIDDEN, HIDDEN)
        self.lm_head = paddle.nn.Linear(HIDDEN, VOCAB)

    def head(self, hidden: Any) -> Any:
        return self.lm_head(hidden)


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    hidden = random.normal(size=[TOKENS, HIDDEN]).astype(np.float32)
    return hidden, random.integers(0, VOCAB, [TOKENS]), random.normal(size=[TOKENS]).astype(np.float32)


def of_torch(model: Model) -> list[np.ndarray]:
    """Losses and gradients by hidden states, matrix and bias of torch, each token with a weight of its own."""
    hidden, labels, weights = drawn()
    x = torch.tensor(hidden, requires_grad=True)
    matrix, bias = (torch.tensor(p.numpy(), requires_grad=True) for p in model.lm_head.parameters())
    losses = torch.nn.functional.cross_entropy(x @ matrix + bias, torch.tensor(labels), reduction="none")
    (losses * torch.tensor(weights)).sum().backward()
    return [losses.detach().numpy(), x.grad.numpy(), matrix.grad.numpy(), bias.grad.numpy()]


@pytest.mark.parametrize("chunk_tokens", [5, 100])
def test_losses_and_gradients_are_those_of_torch(chunk_tokens: int) -> None:
    model = Model()
    hidden, labels, weights = drawn()
    x = paddle.to_tensor(hidden, stop_gradient=False)
    losses = token_losses(x * 1.0, model.head, paddle.to_tensor(labels), chunk_tokens=chunk_tokens)
    (losses * paddle.to_tensor(weights)).sum().backward()
    ours = [losses, x.grad, model.lm_head.weight.grad, model.lm_head.bias.grad]
    for mine, theirs in zip(ours, of_torch(model), strict=True):
        assert np.abs(mine.numpy() - theirs).max() < 1e-5
    assert model.body.weight.grad is None


def test_a_frozen_head_hands_gradients_through() -> None:
    model = Model()
    for parameter in model.parameters():
        parameter.stop_gradient = True
    hidden, labels, weights = drawn()
    x = paddle.to_tensor(hidden, stop_gradient=False)
    (token_losses(x, model.head, paddle.to_tensor(labels)) * paddle.to_tensor(weights)).sum().backward()
    assert np.abs(x.grad.numpy() - of_torch(model)[1]).max() < 1e-5
    assert model.lm_head.weight.grad is None


def test_without_gradients_only_scores_are_computed() -> None:
    model = Model()
    hidden, labels, _ = drawn()
    with paddle.no_grad():
        losses = token_losses(paddle.to_tensor(hidden), model.head, paddle.to_tensor(labels), chunk_tokens=7)
    assert losses.stop_gradient
    assert np.abs(losses.numpy() - of_torch(model)[0]).max() < 1e-5
