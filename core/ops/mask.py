"""Who sees whom in attention, as a description: no S x S tensor is made unless the plain kernel needs one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from paddle import Tensor


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """Causal attention within segments, with prompts that see themselves both ways where ``prefix_BT`` says so.

    Queries are the last S of the T keys. Query i sees key j where both are in the same segment and j <= i, or j is
    in the segment's prefix. Every token sees the shared keys as well. Padding (segment 0) sees only itself, so that no
    row of the softmax is empty; its outputs mean nothing. ``AttentionMask()`` is plain causal attention over full rows.
    """

    segments_BT: Tensor | None = None
    """int32: 0 for padding, k > 0 for the k-th packed sample of the row. ``None``: one segment, no padding."""
    prefix_BT: Tensor | None = None
    """bool: True for tokens of a prompt that sees itself both ways. ``None``: none."""
    num_shared: int = 0
    """The first keys, which belong to no sample (a tuned prefix); what the tensors say of them does not count."""
    _ranges: dict[tuple[int, int], tuple[np.ndarray, np.ndarray] | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Results of ``visible_ranges``, which every layer asks for."""


class Attend(Protocol):
    """Attention as a composed mask calls it; the rest of the arguments of ``ops.attention`` is settled."""

    def __call__(
        self, q_BSND: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: AttentionMask, heads: slice = slice(None), /
    ) -> Tensor:
        """Return the outputs [B, S, N, D]; ``heads`` says which of the layer's query heads are given."""


class ComposedMask(Protocol):
    """A mask under which attention is put together out of simpler calls."""

    def attend(self, q_BSND: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, act: Attend, /) -> Tensor:
        """Return the outputs [B, S, N, D] of all queries."""


def visible_ranges(mask: AttentionMask, num_queries: int, num_keys: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mask as one range of keys a query: int32 [B, S] twice, query i sees keys low <= j < high.

    ``None`` where it cannot be said so: a segment in several pieces, a prefix that is not the segment's start, or
    shared keys with something between them and the segment.
    The batch axis is that of the mask's tensors, of which there is at least one.
    """
    key = (num_queries, num_keys)
    if key not in mask._ranges:
        mask._ranges[key] = _find_ranges(mask, num_queries)
    return mask._ranges[key]


def _find_ranges(mask: AttentionMask, num_queries: int) -> tuple[np.ndarray, np.ndarray] | None:
    given = mask.segments_BT if mask.segments_BT is not None else mask.prefix_BT
    assert given is not None, "a plain causal mask needs no ranges"
    segments_BT = np.ones(given.shape, np.int32) if mask.segments_BT is None else mask.segments_BT.numpy()
    prefix_BT = np.zeros(given.shape, bool) if mask.prefix_BT is None else mask.prefix_BT.numpy()
    num_shared = mask.num_shared
    segments_BT, prefix_BT = segments_BT[:, num_shared:], prefix_BT[:, num_shared:]
    begins_BT = np.ones(segments_BT.shape, bool)
    begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    if not _is_one_run_each(segments_BT, begins_BT):
        return None
    # Runs of all rows one after the other: every row begins one.
    run_starts = np.flatnonzero(begins_BT)
    run_lengths = np.diff(run_starts, append=begins_BT.size)
    prefix_lengths = np.add.reduceat(prefix_BT.ravel().astype(np.int64), run_starts)
    columns_BT = np.broadcast_to(np.arange(segments_BT.shape[1]), segments_BT.shape)
    low_BT = np.repeat(columns_BT.ravel()[run_starts], run_lengths).reshape(segments_BT.shape)
    prefix_end_BT = low_BT + np.repeat(prefix_lengths, run_lengths).reshape(segments_BT.shape)
    is_padding_BT = segments_BT == 0
    if not (prefix_BT == (columns_BT < prefix_end_BT))[~is_padding_BT].all():
        return None
    if num_shared and (low_BT[~is_padding_BT] > 0).any():
        return None
    low_BT = np.where(is_padding_BT, columns_BT + num_shared, low_BT)
    high_BT = np.where(is_padding_BT, columns_BT + 1, np.maximum(columns_BT + 1, prefix_end_BT)) + num_shared
    low_BS, high_BS = (side_BT[:, -num_queries:].astype(np.int32, order="C") for side_BT in (low_BT, high_BT))
    return low_BS, high_BS


def _is_one_run_each(segments_BT: np.ndarray, begins_BT: np.ndarray) -> bool:
    for segments_T, begins_T in zip(segments_BT, begins_BT, strict=True):
        runs = segments_T[begins_T]
        runs = runs[runs > 0]
        if len(np.unique(runs)) < len(runs):
            return False
    return True
