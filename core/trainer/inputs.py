"""A batch of arrays as the tensors of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..ops.from_array import from_array
from ..ops.mask import AttentionMask

if TYPE_CHECKING:
    from paddle import Tensor

    from ..data.sample import Batch
    from ..registry.facts import ModelConfig


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the model and the loss read."""

    ids_BS: Tensor
    positions: Tensor
    mask: AttentionMask
    labels_BS: Tensor


def to_inputs(batch: Batch, config: ModelConfig) -> Inputs:
    """Move a batch to the device; its mask says no more than it must, so that the fastest kernel can be taken.

    Raises:
        DataError: a token id is not in the model's vocabulary.
    """
    highest = max(int(batch.ids_BS.max()), int(batch.labels_BS.max()))
    if highest >= config.vocab_size:
        raise DataError(
            f"token id {highest}: is outside the model's vocabulary (vocab_size {config.vocab_size}). "
            "The data was made with another tokenizer."
        )
    return Inputs(
        ids_BS=from_array(batch.ids_BS),
        positions=from_array(batch.positions),
        mask=_mask(batch, prefix=config.prefix_lm),
        labels_BS=from_array(batch.labels_BS),
    )


def _mask(batch: Batch, *, prefix: bool) -> AttentionMask:
    """Leave out segments where there is one per row; trailing padding then needs no mask either.

    Padding stands on the right, so under causal attention no real token sees it.
    """
    one_segment = bool((batch.segments_BS <= 1).all()) and not prefix
    segments_BS = None if one_segment else from_array(batch.segments_BS.astype(np.int32))
    return AttentionMask(segments_BS, from_array(batch.prefix_BS) if prefix else None)
