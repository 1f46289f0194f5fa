"""Cross-entropy of logits of which each rank has those of its own tokens of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

from ...ops.cross_entropy import IGNORED
from ..collectives import all_reduce
from .parts import even_span

if TYPE_CHECKING:
    from paddle import Tensor

    from ..groups import Group


class VocabularyLoss:
    """Losses from slices of logits: three numbers a token pass between the ranks, and no logits.

    Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3 (fused parallel cross-entropy).
    """

    def __init__(self, vocab_size: int, group: Group) -> None:
        """Split the vocabulary over the ranks of ``group`` as ``find_parts`` splits the head."""
        self._vocab_size, self._group = vocab_size, group
        self._first, self._last = even_span(vocab_size, group.size, group.index)

    def __call__(self, logits_TV: Tensor, labels_T: Tensor, *, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return the summed loss in nats, and its gradient by this rank's logits where that is wanted.

        Args:
            logits_TV: of this rank's tokens of the vocabulary.
            labels_T: int64, the same on all ranks; -100 where nothing is learnt.
            wants_gradient: False saves the work.

        Raises:
            ValueError: a label is neither -100 nor a token of the vocabulary.
        """
        with paddle.no_grad():
            losses_T, powers_TV, sums_T1 = self._losses(logits_TV.detach(), labels_T)
            counts_T = (labels_T != IGNORED).astype("float32")
            loss = (losses_T * counts_T).sum()
            if not wants_gradient:
                return loss, None
            columns_T1, is_mine_T1 = self._targets(labels_T)
            minus_T1 = -is_mine_T1.astype("float32")
            gradient_TV = paddle.put_along_axis(powers_TV / sums_T1, columns_T1, minus_T1, axis=1, reduce="add")
            return loss, (gradient_TV * counts_T.unsqueeze(-1)).astype(logits_TV.dtype)

    def score(self, logits_TV: Tensor, labels_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return each token's loss in nats, float32 [T], and whether its label has the largest logit, bool [T].

        Of equal logits the first token of the vocabulary counts as the largest, as in ``argmax``.
        """
        with paddle.no_grad():
            losses_T, _, _ = self._losses(logits_TV, labels_T)
            best_T = logits_TV.astype("float32").max(axis=-1)
            is_here_T = best_T == all_reduce(best_T, self._group, op="max")
            # The smallest id among the ranks that have the maximum, as the largest of its negatives.
            found_T = -(logits_TV.argmax(axis=-1) + self._first)
            none_T = paddle.full_like(found_T, -self._vocab_size)
            winner_T = -all_reduce(paddle.where(is_here_T, found_T, none_T), self._group, op="max")
            return losses_T, winner_T == labels_T

    def _losses(self, logits_TV: Tensor, labels_T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses [T] (of ignored labels too), exp(logit - maximum) [T, V], and its sum over all ranks [T, 1]."""
        self._check(labels_T)
        logits_TV = logits_TV.astype("float32")
        maximum_T1 = all_reduce(logits_TV.max(axis=-1, keepdim=True), self._group, op="max")
        shifted_TV = logits_TV - maximum_T1
        columns_T1, is_mine_T1 = self._targets(labels_T)
        target_T1 = paddle.take_along_axis(shifted_TV, columns_T1, axis=1) * is_mine_T1.astype("float32")
        powers_TV = paddle.exp(shifted_TV)
        both_2T = all_reduce(paddle.stack([powers_TV.sum(axis=-1), target_T1.squeeze(-1)]), self._group)
        return paddle.log(both_2T[0]) - both_2T[1], powers_TV, both_2T[0].unsqueeze(-1)

    def _targets(self, labels_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return the column of each label among this rank's logits, and whether it is there; [T, 1] both."""
        is_mine_T = paddle.logical_and(labels_T >= self._first, labels_T < self._last)
        columns_T = paddle.where(is_mine_T, labels_T - self._first, paddle.zeros_like(labels_T))
        return columns_T.unsqueeze(-1), is_mine_T.unsqueeze(-1)

    def _check(self, labels_T: Tensor) -> None:
        is_wrong_T = paddle.logical_or(labels_T >= self._vocab_size, labels_T < 0)
        if paddle.logical_and(is_wrong_T, labels_T != IGNORED).any().item():
            raise ValueError(f"linear_cross_entropy: a label is neither {IGNORED} nor one of {self._vocab_size} tokens")
