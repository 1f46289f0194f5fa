"""Samples to batches: padding on the right, so that positions and masks of a row begin at 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .sample import IGNORED, Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..registry.facts import ModelConfig
    from .sample import Sample


def collate(samples: Sequence[Sample], config: ModelConfig, pad_id: int, *, length: int | None = None) -> Batch:
    """Pad samples to one length and number their positions.

    Args:
        samples: at least one.
        config: of the model; it numbers the positions.
        pad_id: the token that fills up; its segment is 0 and its label ignored.
        length: of the rows, in tokens; default: that of the longest sample.

    Returns:
        ids and labels int64, segments int32, prefix bool, all [B, S]; positions as the model wants them.

    Raises:
        ValueError: a sample is longer than ``length``.
    """
    longest = max(len(sample.ids) for sample in samples)
    if length is not None and longest > length:
        raise ValueError(f"a sample of {longest} tokens does not fit into rows of {length}")
    shape = (len(samples), longest if length is None else length)
    ids_BS = np.full(shape, pad_id, dtype=np.int64)
    labels_BS = np.full(shape, IGNORED, dtype=np.int64)
    segments_BS = np.zeros(shape, dtype=np.int32)
    prefix_BS = np.zeros(shape, dtype=bool)
    for row, sample in enumerate(samples):
        end = len(sample.ids)
        ids_BS[row, :end] = sample.ids
        labels_BS[row, :end] = sample.labels
        segments_BS[row, :end] = sample.segments
        prefix_BS[row, :end] = sample.prefix
    return Batch(ids_BS, labels_BS, segments_BS, prefix_BS, config.positions(ids_BS, segments_BS, prefix_BS))
