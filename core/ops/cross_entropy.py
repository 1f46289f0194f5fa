"""Cross-entropy straight from hidden states, without ever holding the logits of all tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .native import dense, differentiable, kernel
from .select import uses_native

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paddle import Tensor

IGNORED = -100
"""Label of a token that is not learnt."""


class SplitLoss(Protocol):
    """Losses from logits that are split: each rank has those of some tokens of the vocabulary.

    A layer whose ``head`` returns such logits has one as its attribute ``split_loss``.
    """

    def __call__(self, logits_TV: Tensor, labels_T: Tensor, *, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return the summed loss in nats, and its gradient by this rank's logits where that is wanted."""

    def score(self, logits_TV: Tensor, labels_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return each token's loss in nats, float32 [T], and whether its label has the largest logit, bool [T]."""


def linear_cross_entropy(
    hidden_BSH: Tensor,
    head: Callable[[Tensor], Tensor],
    labels_BS: Tensor,
    *,
    chunk_tokens: int = 1024,
    parameters: Sequence[Tensor] | None = None,
) -> tuple[Tensor, int]:
    """Return the summed cross-entropy of ``head(hidden)`` in nats, and the number of tokens that count in it.

    Goes over chunks of tokens. The gradients of a chunk are computed while its logits exist, so that nothing of the
    size tokens x vocabulary is kept; memory is one chunk of float32 logits and the gradients themselves.

    Args:
        hidden_BSH: final hidden states.
        head: maps [T, H] to logits [T, V], each token by itself: a ``Layer`` or a method of one. Where the layer has a
            ``split_loss``, that computes the loss.
        labels_BS: int64, already the next token; -100 where nothing is learnt.
        chunk_tokens: tokens whose logits exist at the same time.
        parameters: the tensors that ``head`` learns, where it is neither a ``Layer`` nor a method of one.

    Returns:
        0-d float32 sum, from which gradients flow into ``hidden`` and the parameters of ``head``; and the count.

    Raises:
        TypeError: ``head`` is a bare function and ``parameters`` is not given.
        ValueError: a label is neither -100 nor a token of the vocabulary.
    """
    hidden_TH = hidden_BSH.reshape([-1, hidden_BSH.shape[-1]])
    labels_T = labels_BS.flatten().astype("int64")
    num_supervised = cast("int", (labels_T != IGNORED).sum().item())
    split_loss = split_loss_of(head)
    if not paddle.is_grad_enabled():
        chunks = spans(hidden_TH.shape[0], chunk_tokens)
        losses = [_plain_or_split_loss(split_loss, head(hidden_TH[span]), labels_T[span]) for span in chunks]
        return paddle.add_n(losses), num_supervised
    learnt = [tensor for tensor in head_parameters(head, parameters) if not tensor.stop_gradient]
    sweep = _Sweep(hidden_TH, learnt, split_loss)
    for span in spans(hidden_TH.shape[0], chunk_tokens):
        sweep.add(head, span, labels_T[span])
    return differentiable(_KnownGradients, sweep, hidden_TH, *sweep.used), num_supervised


def token_scores(hidden_TH: Tensor, head: Callable[[Tensor], Tensor], labels_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's cross-entropy in nats, float32 [T], and whether its label is the likeliest token, bool [T].

    Without gradients, and for as many tokens as their logits have room for.

    Args:
        hidden_TH: final hidden states.
        head: as of ``linear_cross_entropy``.
        labels_T: int64, tokens of the vocabulary.
    """
    split_loss = split_loss_of(head)
    with paddle.no_grad():
        logits_TV = head(hidden_TH).astype("float32")
        if split_loss is not None:
            return split_loss.score(logits_TV, labels_T)
        return F.cross_entropy(logits_TV, labels_T, reduction="none"), logits_TV.argmax(axis=-1) == labels_T


def spans(num_tokens: int, chunk_tokens: int) -> list[slice]:
    """Return the chunks that tokens are handled in."""
    return [slice(start, min(start + chunk_tokens, num_tokens)) for start in range(0, num_tokens, chunk_tokens)]


def _layer(head: Callable[[Tensor], Tensor]) -> Any:
    """Return the layer that ``head`` is or is a method of; something else where it is neither."""
    return head if isinstance(head, paddle.nn.Layer) else getattr(head, "__self__", None)


def split_loss_of(head: Callable[[Tensor], Tensor]) -> SplitLoss | None:
    """Return what computes losses from the head's logits where they are split."""
    return cast("SplitLoss | None", getattr(_layer(head), "split_loss", None))


def head_parameters(head: Callable[[Tensor], Tensor], parameters: Sequence[Tensor] | None = None) -> Sequence[Tensor]:
    """Return what the head may learn; of a method, all that its layer has.

    Raises:
        TypeError: ``head`` is a bare function and ``parameters`` is not given.
    """
    if parameters is not None:
        return parameters
    layer = _layer(head)
    if not isinstance(layer, paddle.nn.Layer):
        raise TypeError("linear_cross_entropy: head is neither a Layer nor a method of one. Pass its parameters=.")
    return list(layer.parameters())


def _native_loss(logits_TV: Tensor, labels_T: Tensor, gradient: int | None) -> Tensor:
    logits_TV, labels_T = dense(logits_TV), dense(labels_T)
    loss = kernel("cross_entropy")(logits_TV.data_ptr(), labels_T.data_ptr(), IGNORED, *logits_TV.shape, gradient)
    if loss == -1.0:
        raise ValueError(f"linear_cross_entropy: a label is neither {IGNORED} nor one of {logits_TV.shape[-1]} tokens")
    return paddle.full([], loss, dtype="float32")


def _loss(logits_TV: Tensor, labels_T: Tensor) -> Tensor:
    if logits_TV.stop_gradient and uses_native("cross_entropy", logits_TV):
        return _native_loss(logits_TV, labels_T, None)
    return F.cross_entropy(logits_TV.astype("float32"), labels_T, ignore_index=IGNORED, reduction="sum")


def _plain_or_split_loss(split_loss: SplitLoss | None, logits_TV: Tensor, labels_T: Tensor) -> Tensor:
    if split_loss is None:
        return _loss(logits_TV, labels_T)
    return split_loss(logits_TV, labels_T, wants_gradient=False)[0]


class _Sweep:
    """Loss and gradients, summed chunk by chunk."""

    def __init__(self, hidden_TH: Tensor, learnt: list[Tensor], split_loss: SplitLoss | None) -> None:
        self.loss = paddle.zeros([])
        self.used: list[Tensor] = learnt
        self._hidden_TH = hidden_TH.detach()
        self._hidden_grads: list[Tensor] = []
        self._used_grads: list[Tensor] = []
        self._logits_grad: Tensor | None = None
        self._split_loss = split_loss

    def add(self, head: Callable[[Tensor], Tensor], span: slice, labels_T: Tensor) -> None:
        chunk_TH = self._hidden_TH[span]
        chunk_TH.stop_gradient = False
        logits_TV = head(chunk_TH)
        loss, seeds = self._loss(logits_TV, labels_T)
        outputs = [loss] if seeds is None else [logits_TV]
        hidden_grad, *grads = paddle.grad(outputs, [chunk_TH, *self.used], grad_outputs=seeds, allow_unused=True)
        if not self._hidden_grads:
            # A method's layer is often the whole model: only what the first chunk reaches belongs to the head.
            reached = [grad is not None for grad in grads]
            self.used = [tensor for tensor, is_used in zip(self.used, reached, strict=True) if is_used]
            self._used_grads = [grad for grad in grads if grad is not None]
        else:
            with paddle.no_grad():
                for total, grad in zip(self._used_grads, grads, strict=True):
                    total.add_(grad)
        self._hidden_grads.append(hidden_grad)
        self.loss = self.loss + loss.detach()

    def _loss(self, logits_TV: Tensor, labels_T: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """Return the loss, and its gradient by the logits where that is known without going back."""
        if self._split_loss is not None:
            loss, gradient = self._split_loss(logits_TV, labels_T, wants_gradient=True)
            return loss, None if gradient is None else [gradient]
        if uses_native("cross_entropy", logits_TV):
            return self._native(logits_TV, labels_T)
        return _loss(logits_TV, labels_T), None

    def _native(self, logits_TV: Tensor, labels_T: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the loss and its gradient by the logits, in memory that all chunks share."""
        if self._logits_grad is None or self._logits_grad.shape != logits_TV.shape:
            self._logits_grad = paddle.empty_like(logits_TV)
        loss = _native_loss(logits_TV, labels_T, self._logits_grad.data_ptr())
        return loss, [self._logits_grad]

    def grads(self) -> list[Tensor]:
        return [paddle.concat(self._hidden_grads), *self._used_grads]


class _KnownGradients(PyLayer):
    """Hand on a loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, sweep: _Sweep, hidden_TH: Tensor, *used: Tensor) -> Tensor:
        ctx.grads = sweep.grads()
        ctx.wanted = [not tensor.stop_gradient for tensor in (hidden_TH, *used)]
        return sweep.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        # In their own memory: the gradient of a head is among the largest tensors of a step.
        grads, ctx.grads = ctx.grads, ()
        return tuple(
            grad.multiply_(upstream.astype(grad.dtype)) if wanted else None
            for grad, wanted in zip(grads, ctx.wanted, strict=True)
        )
