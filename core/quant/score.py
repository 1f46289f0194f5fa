"""What quantization did to the predictions: perplexity before and after, and how far logits moved.

Shape letters: B batch, S tokens, T tokens that are predicted, H hidden, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import paddle
import paddle.nn.functional as F

from ..data.sample import IGNORED
from .groups import HEAD
from .layer import put_layers

if TYPE_CHECKING:
    from paddle import Tensor, nn

    from ..causal_lm import CausalLM
    from .walk import Walk

CHUNK_TOKENS = 512
"""Tokens whose logits are held at once, twice."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model before and after, on the same tokens."""

    num_tokens: int
    ppl_before: float
    ppl_after: float
    max_logit_difference: float
    same_top_token: float
    """Share of tokens whose likeliest successor is the same."""

    @property
    def ppl_increase(self) -> float:
        """In per cent of the perplexity before."""
        return 100 * (self.ppl_after / self.ppl_before - 1)


def compare(model: CausalLM, before: Walk, after: Walk, heads: tuple[nn.Layer, nn.Layer] | None = None) -> Comparison:
    """Compare the predictions of two walks over the same batches that have gone through all blocks.

    Args:
        model: whose final norm is as it was.
        before: through the blocks as they were.
        after: through the quantized blocks.
        heads: the layer ``lm_head`` before and after; ``None``: the model's head is as it was.

    Raises:
        DistributedError: a rank has gone, is late, or came to something else.
    """
    with paddle.no_grad():
        own = [
            _compare_batch(model, batch.labels_BS, hidden, heads)
            for batch, *hidden in zip(before.batches, before.hidden, after.hidden, strict=True)
        ]
    batches = np.stack(before.ranks.in_order(own))
    loss_before, loss_after, num_same, num_tokens = (float(column.sum()) for column in batches[:, :4].T)
    # A model that is broken altogether still gets a number.
    before_ppl, after_ppl = (math.exp(min(loss / num_tokens, 700.0)) for loss in (loss_before, loss_after))
    return Comparison(int(num_tokens), before_ppl, after_ppl, float(batches[:, 4].max()), num_same / num_tokens)


def _compare_batch(
    model: CausalLM, labels_BS: np.ndarray, hidden: list[Tensor], heads: tuple[nn.Layer, nn.Layer] | None
) -> np.ndarray:
    """Return losses before and after, how often the likeliest token is the same, tokens, the largest difference."""
    labels_T = labels_BS.reshape(-1)
    places_T = np.flatnonzero(labels_T != IGNORED)
    finished = [model.finish(state).reshape([-1, state.shape[-1]]) for state in hidden]
    losses, largest, num_same = np.zeros(2), 0.0, 0
    for first in range(0, len(places_T), CHUNK_TOKENS):
        chunk_T = places_T[first : first + CHUNK_TOKENS]
        wanted_T = paddle.to_tensor(labels_T[chunk_T])
        logits = [
            _logits(model, state_TH, chunk_T, head)
            for state_TH, head in zip(finished, heads or (None, None), strict=True)
        ]
        losses += [_loss(each_TV, wanted_T) for each_TV in logits]
        largest = max(largest, float((logits[0] - logits[1]).abs().max()))
        num_same += int((logits[0].argmax(axis=-1) == logits[1].argmax(axis=-1)).sum())
    return np.array([*losses, num_same, len(places_T), largest])


def _logits(model: CausalLM, finished_TH: Tensor, places_T: np.ndarray, head: nn.Layer | None) -> Tensor:
    if head is not None:
        put_layers(model, {HEAD: head})
    return model.head(paddle.gather(finished_TH, paddle.to_tensor(places_T))).astype("float32")


def _loss(logits_TV: Tensor, labels_T: Tensor) -> float:
    return float(F.cross_entropy(logits_TV, labels_T, reduction="none").astype("float64").sum())
