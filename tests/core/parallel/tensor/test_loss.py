"""Cross-entropy of split logits; that of several ranks is in ``test_split_models``."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from llm_run.core.parallel.groups import alone
from llm_run.core.parallel.tensor.loss import VocabularyLoss

LABELS = paddle.to_tensor([3, -100, 0, 10, 5])


@pytest.fixture
def logits_TV() -> paddle.Tensor:
    values = 3 * np.random.default_rng(1).standard_normal([5, 11]).astype("float32")
    return paddle.to_tensor(values, stop_gradient=False)


def test_loss_and_gradient_equal_paddles(logits_TV: paddle.Tensor) -> None:
    loss, gradient = VocabularyLoss(11, alone("mp"))(logits_TV, LABELS, wants_gradient=True)
    expected = F.cross_entropy(logits_TV, LABELS, ignore_index=-100, reduction="sum")
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-6)
    assert gradient is not None
    np.testing.assert_allclose(gradient.numpy(), logits_TV.grad.numpy(), atol=1e-6)


def test_logits_that_exp_cannot_take_make_no_nan() -> None:
    logits_TV = paddle.to_tensor([[1000.0, 0.0, -1000.0], [0.0, 2000.0, 0.0]])
    loss, gradient = VocabularyLoss(3, alone("mp"))(logits_TV, paddle.to_tensor([1, 1]), wants_gradient=True)
    assert loss.item() == 1000.0
    assert gradient is not None
    np.testing.assert_array_equal(gradient.numpy(), [[1, -1, 0], [0, 0, 0]])


def test_scores_take_the_first_of_equal_logits_as_the_likeliest(logits_TV: paddle.Tensor) -> None:
    loss = VocabularyLoss(4, alone("mp"))
    losses_T, is_best_T = loss.score(paddle.to_tensor([[0.0, 5.0, 5.0, 1.0]] * 2), paddle.to_tensor([1, 2]))
    assert is_best_T.tolist() == [True, False]
    np.testing.assert_allclose(losses_T.numpy(), [0.7056] * 2, atol=1e-4)


@pytest.mark.parametrize("label", [11, -1])
def test_a_label_outside_the_vocabulary_is_refused(logits_TV: paddle.Tensor, label: int) -> None:
    labels_T = paddle.to_tensor([0, label, 1, 2, 3])
    with pytest.raises(ValueError) as refusal:
        VocabularyLoss(11, alone("mp"))(logits_TV, labels_T, wants_gradient=False)
    assert str(refusal.value) == "linear_cross_entropy: a label is neither -100 nor one of 11 tokens"
