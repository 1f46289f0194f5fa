"""The logits of the whole vocabulary, whatever part of it each rank computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

from ..collectives import all_gather
from ..plan import padded_vocabulary
from .model import split_of

if TYPE_CHECKING:
    from paddle import Tensor

    from ...causal_lm import CausalLM


def whole_logits(model: CausalLM, hidden: Tensor) -> Tensor:
    """Return the logits of all tokens of the vocabulary, the same to the bit on every tensor-parallel rank.

    The autograd does not see it: this is for generating.

    Args:
        model: whole, or a rank's part; then all of these ranks must ask.
        hidden: [..., H], the same on all of them.

    Returns:
        [..., V].

    Raises:
        DistributedError: a rank has gone or is late.
    """
    logits, split = model.head(hidden), split_of(model)
    if split is None or not split.splits_head:
        return logits
    vocab_size = model.config.vocab_size
    missing = padded_vocabulary(vocab_size, split.group.size) // split.group.size - logits.shape[-1]
    if missing:  # the last rank has less where the vocabulary does not divide
        logits = paddle.concat([logits, paddle.zeros([*logits.shape[:-1], missing], dtype=logits.dtype)], axis=-1)
    whole = all_gather(logits, split.group, dim=-1)
    return whole[..., :vocab_size]
