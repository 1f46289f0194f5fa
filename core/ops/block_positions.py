"""Blank filling with two-dimensional positions: where the tokens stand, and what of a prompt sees itself both ways.

A prompt is a context with a blank in it, and a token that opens the text that fills the blank. Imports no Paddle.

Source: Du et al. 2022, arXiv:2103.10360, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from paddle import Tensor

    from .graph_attention import GraphMask
    from .mask import AttentionMask
    from .ragged import RaggedMask

    Mask = TypeVar("Mask", AttentionMask, RaggedMask, GraphMask)


def block_positions(
    ids_BS: np.ndarray, segments_BS: np.ndarray, prefix_BS: np.ndarray | None, *,
    opening_id: int, blank_ids: Sequence[Sequence[int]],
) -> np.ndarray:  # fmt: skip
    """Number the context 0, 1, 2, … in row 0, and what follows 1, 2, 3, … in row 1.

    What follows stands where the blank is that it fills (row 0); the context has 0 in row 1. The context is the
    prompt up to ``opening_id``. Padding has 0 in both rows.

    Args:
        ids_BS: token ids.
        segments_BS: 0 for padding, k > 0 for the k-th sample of the row.
        prefix_BS: True for tokens of a prompt.
        opening_id: the token that opens what fills the blank.
        blank_ids: the tokens that are blanks, in groups: the first of the first group that is there is the one that is
            filled. Without any, the last token of the context is.

    Returns:
        int64 [B, 2, S].
    """
    positions = np.zeros((len(ids_BS), 2, ids_BS.shape[1]), dtype=np.int64)
    for row, (ids_S, segments_S) in enumerate(zip(ids_BS, segments_BS, strict=True)):
        borders = [0, *np.flatnonzero(np.diff(segments_S)) + 1, len(segments_S)]
        for start, end in pairwise(borders):
            if segments_S[start] > 0:
                prompt = 0 if prefix_BS is None else int(prefix_BS[row, start:end].sum())
                positions[row, :, start:end] = _of_one_sample(ids_S[start:end], prompt, opening_id, blank_ids)
    return positions


def without_opening(mask: Mask, blocks_BS: Tensor) -> Mask:
    """Keep only the context in the mask's prefix: a prompt ends in the opening token, which it does not see.

    Keys before the last S need no care: all that stands behind a prompt sees the whole of it anyway.

    Args:
        mask: as the core made it, with whole prompts as prefixes.
        blocks_BS: row 1 of the positions of the last S tokens.
    """
    from .graph_attention import GraphMask  # not at the top: numbering tokens does without Paddle
    from .ragged import RaggedMask

    if isinstance(mask, GraphMask):
        return mask.within(blocks_BS == 0)
    if isinstance(mask, RaggedMask):
        return mask.changed(without_opening, blocks_BS)
    if mask.prefix_BT is None:
        return mask
    from paddle import concat

    before = mask.prefix_BT.shape[1] - blocks_BS.shape[1]
    context_BS = mask.prefix_BT[:, before:] & (blocks_BS == 0)
    return replace(mask, prefix_BT=concat([mask.prefix_BT[:, :before], context_BS], axis=1))


def _of_one_sample(ids_S: np.ndarray, prompt: int, opening_id: int, blank_ids: Sequence[Sequence[int]]) -> np.ndarray:
    openings = np.flatnonzero(ids_S[:prompt] == opening_id)
    context = int(openings[0]) if len(openings) else prompt
    found = (np.flatnonzero(np.isin(ids_S[:context], group)) for group in blank_ids)
    blank = next((int(places[0]) for places in found if len(places)), max(context - 1, 0))
    columns = np.arange(len(ids_S))
    return np.stack([np.where(columns < context, columns, blank), np.maximum(columns - context + 1, 0)])
