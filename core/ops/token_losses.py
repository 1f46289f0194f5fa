"""Each token's own cross-entropy, differentiable, without ever holding the logits of all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .cross_entropy import head_parameters, spans, split_loss_of, token_scores
from .native import differentiable

if TYPE_CHECKING:
    from collections.abc import Callable

    from paddle import Tensor

    from .cross_entropy import SplitLoss


def token_losses(
    hidden_TH: Tensor, head: Callable[[Tensor], Tensor], labels_T: Tensor, *, chunk_tokens: int = 1024
) -> Tensor:
    """Return each token's cross-entropy in nats, float32 [T]: the negative of its log-probability.

    Where ``linear_cross_entropy`` knows that all tokens count alike, here their weights are known in the backward
    pass only, so that it computes the logits of each chunk again.

    Args:
        hidden_TH: final hidden states.
        head: maps [T, H] to logits [T, V], each token by itself: a ``Layer`` or a method of one.
        labels_T: int64, tokens of the vocabulary.
        chunk_tokens: tokens whose logits exist at the same time.
    """
    if not paddle.is_grad_enabled():
        return _scored(hidden_TH, head, labels_T, chunk_tokens)
    return differentiable(_TokenLosses, head, chunk_tokens, hidden_TH, labels_T, *_reached(head, hidden_TH))


def _reached(head: Callable[[Tensor], Tensor], hidden_TH: Tensor) -> list[Tensor]:
    """Return what the head learns: a method's layer is often the whole model, most of which is not the head's."""
    learnt = [tensor for tensor in head_parameters(head) if not tensor.stop_gradient]
    if not learnt:
        return []
    grads = paddle.grad([head(hidden_TH[:1].detach())], learnt, allow_unused=True)
    return [tensor for tensor, grad in zip(learnt, grads, strict=True) if grad is not None]


def _scored(hidden_TH: Tensor, head: Callable[[Tensor], Tensor], labels_T: Tensor, chunk_tokens: int) -> Tensor:
    parts = [token_scores(hidden_TH[span], head, labels_T[span])[0] for span in spans(len(labels_T), chunk_tokens)]
    return paddle.concat(parts) if parts else paddle.zeros([0])


class _TokenLosses(PyLayer):
    """Forward keeps hidden states only; backward goes over the chunks again."""

    @staticmethod
    def forward(
        ctx: Any, head: Callable[[Tensor], Tensor], chunk_tokens: int, hidden_TH: Tensor, labels_T: Tensor,
        *learnt: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.head, ctx.chunk_tokens, ctx.learnt = head, chunk_tokens, learnt
        ctx.wants_hidden = not hidden_TH.stop_gradient
        ctx.save_for_backward(hidden_TH, labels_T)
        return _scored(hidden_TH, head, labels_T, chunk_tokens)

    @staticmethod
    def backward(ctx: Any, upstream_T: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden_TH, labels_T = ctx.saved_tensor()
        hidden_grads: list[Tensor] = []
        sums: list[Tensor] = []
        for span in spans(len(labels_T), ctx.chunk_tokens):
            chunk_TH = hidden_TH[span].detach()
            chunk_TH.stop_gradient = False
            with paddle.enable_grad():
                outputs, seeds = _weighted(ctx.head, chunk_TH, labels_T[span], upstream_T[span])
                hidden_grad, *grads = paddle.grad([outputs], [chunk_TH, *ctx.learnt], grad_outputs=[seeds])
            hidden_grads.append(hidden_grad)
            sums = [total.add_(grad) for total, grad in zip(sums, grads, strict=True)] if sums else grads
        return (paddle.concat(hidden_grads) if ctx.wants_hidden else None, None, *sums)


def _weighted(
    head: Callable[[Tensor], Tensor], chunk_TH: Tensor, labels_T: Tensor, upstream_T: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what to go back from, and its gradient."""
    logits_TV = head(chunk_TH)
    split_loss: SplitLoss | None = split_loss_of(head)
    if split_loss is None:
        losses_T = F.cross_entropy(logits_TV.astype("float32"), labels_T, reduction="none")
        return losses_T, upstream_T
    _, gradient_TV = split_loss(logits_TV, labels_T, wants_gradient=True)
    assert gradient_TV is not None
    return logits_TV, gradient_TV * upstream_T.unsqueeze(-1).astype(gradient_TV.dtype)
