"""Where the tokens of a GLM stand: two-dimensional positions."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .config import GlmConfig


def number_tokens(
    config: GlmConfig, ids_BS: np.ndarray, segments_BS: np.ndarray, prefix_BS: np.ndarray | None
) -> np.ndarray:
    """Number the context 0, 1, 2, … in row 0, and what follows 1, 2, 3, … in row 1.

    What follows stands where the blank is that it fills (row 0); the context has 0 in row 1. The context is the
    prompt up to ``<|startofpiece|>``. Padding has 0 in both rows.

    Returns:
        int64 [B, 2, S].

    Source: Du et al. 2022, arXiv:2103.10360, section 2.2.
    """
    positions = np.zeros((len(ids_BS), 2, ids_BS.shape[1]), dtype=np.int64)
    for row, (ids_S, segments_S) in enumerate(zip(ids_BS, segments_BS, strict=True)):
        borders = [0, *np.flatnonzero(np.diff(segments_S)) + 1, len(segments_S)]
        for start, end in pairwise(borders):
            if segments_S[start] > 0:
                prompt = 0 if prefix_BS is None else int(prefix_BS[row, start:end].sum())
                positions[row, :, start:end] = _of_one_sample(config, ids_S[start:end], prompt)
    return positions


def _of_one_sample(config: GlmConfig, ids_S: np.ndarray, prompt: int) -> np.ndarray:
    openings = np.flatnonzero(ids_S[:prompt] == config.sop_id)
    context = int(openings[0]) if len(openings) else prompt
    blanks = np.flatnonzero(np.isin(ids_S[:context], config.blank_ids))
    blank = int(blanks[0]) if len(blanks) else max(context - 1, 0)
    columns = np.arange(len(ids_S))
    return np.stack([np.where(columns < context, columns, blank), np.maximum(columns - context + 1, 0)])
