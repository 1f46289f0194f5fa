"""Attention over a mask description."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import paddle
import paddle.nn.functional as F

from .attention_gpu import gpu_attention
from .attention_gpu import obstacle as gpu_obstacle
from .attention_gpu_ragged import gpu_ragged_attention, ragged_obstacle
from .attention_native import NativeAttention
from .from_array import from_array
from .graph_attention import GraphMask, graph_attention
from .mask import AttentionMask, visible_ranges
from .native import dense, differentiable
from .ragged import RaggedMask
from .select import decline, uses_gpu, uses_native

if TYPE_CHECKING:
    from paddle import Tensor

    from .attention_native import Ranges
    from .mask import ComposedMask

_forgets_scores: ContextVar[bool] = ContextVar("forgets_scores", default=False)

_HIDDEN = -1e30
"""Added to the score of a key that a query may not see: its weight becomes 0, and a finite number is no NaN."""


def attention(
    q_BSND: Tensor,
    k_BTKD: Tensor,
    v_BTKD: Tensor,
    mask: AttentionMask | ComposedMask | GraphMask,
    *,
    scale: float | None = None,
    slopes_N: np.ndarray | None = None,
    dropout: float = 0.0,
    training: bool = False,
) -> Tensor:
    """Return softmax(q k^T * scale + ALiBi, over the keys that ``mask`` lets each query see) v, [B, S, N, D].

    The softmax is in float32. The queries are the last S of the T tokens. Query head n reads key/value head
    n // (N / K), so K must divide N.

    Args:
        q_BSND: queries.
        k_BTKD: keys.
        v_BTKD: values.
        mask: who sees whom.
        scale: factor on the scores; D ** -0.5 where it is ``None``.
        slopes_N: float32, one a head; adds slope * (j - i) to the score of query i and key j.
        dropout: share of attention weights set to 0 while ``training``.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; grouped heads Ainslie et al. 2023, arXiv:2305.13245.
    """
    if isinstance(mask, GraphMask):
        return graph_attention(q_BSND, k_BTKD, v_BTKD, mask, scale=scale, slopes_N=slopes_N)
    if isinstance(mask, RaggedMask) and uses_gpu("attention", q_BSND, k_BTKD, v_BTKD):
        obstacle = ragged_obstacle(q_BSND, k_BTKD, v_BTKD, mask, slopes_N)
        if not obstacle:
            return gpu_ragged_attention(q_BSND, k_BTKD, v_BTKD, mask, scale=scale)
        decline("attention", obstacle)
    if not isinstance(mask, AttentionMask):

        def act(q: Tensor, k: Tensor, v: Tensor, simple: AttentionMask, heads: slice = slice(None), /) -> Tensor:
            slopes = None if slopes_N is None else slopes_N[heads]
            return attention(q, k, v, simple, scale=scale, slopes_N=slopes, dropout=dropout, training=training)

        return mask.attend(q_BSND, k_BTKD, v_BTKD, act)
    scale = q_BSND.shape[-1] ** -0.5 if scale is None else scale
    slopes_N = None if slopes_N is None else np.ascontiguousarray(slopes_N, dtype=np.float32)
    dropout = dropout if training else 0.0
    if uses_native("attention", q_BSND, k_BTKD, v_BTKD):
        ranges, obstacle = _native_ranges(mask, q_BSND.shape, k_BTKD.shape, v_BTKD.shape, dropout)
        if not obstacle:
            return differentiable(NativeAttention, q_BSND, k_BTKD, v_BTKD, ranges, scale, slopes_N)
        decline("attention", obstacle)
    if uses_gpu("attention", q_BSND, k_BTKD, v_BTKD):
        obstacle = gpu_obstacle(q_BSND, k_BTKD, v_BTKD, mask, scale=scale, slopes_N=slopes_N)
        if not obstacle:
            return gpu_attention(q_BSND, k_BTKD, v_BTKD, mask, dropout=dropout)
        decline("attention", obstacle)
    if _forgets_scores.get() and paddle.is_grad_enabled():
        from paddle.distributed.fleet.utils import recompute

        again = recompute(_plain, q_BSND, k_BTKD, v_BTKD, mask, scale, slopes_N, dropout, use_reentrant=False)
        return cast("Tensor", again)
    return _plain(q_BSND, k_BTKD, v_BTKD, mask, scale, slopes_N, dropout)


@contextmanager
def forgotten_scores() -> Iterator[None]:
    """Within the block, ``attention`` keeps no scores and computes them again in the backward pass.

    The C++ kernel never keeps them, so this concerns the plain variant only.
    """
    token = _forgets_scores.set(True)
    try:
        yield
    finally:
        _forgets_scores.reset(token)


def _native_ranges(
    mask: AttentionMask, q_shape: list[int], k_shape: list[int], v_shape: list[int], dropout: float
) -> tuple[Ranges | None, str]:
    """Return the mask as the C++ kernel wants it, and what keeps the kernel from doing the call, if anything."""
    if dropout > 0:
        return None, "it has no attention dropout"
    if k_shape != v_shape:
        return None, "heads of keys and values differ in size"
    if mask.segments_BT is None and mask.prefix_BT is None:
        return None, ""
    ranges = visible_ranges(mask, q_shape[1], k_shape[1])
    if ranges is None:
        return None, "a segment of the mask is in several pieces, or a prefix is not its start"
    if ranges[0].shape[0] != q_shape[0]:
        ranges = np.repeat(ranges[0], q_shape[0], axis=0), np.repeat(ranges[1], q_shape[0], axis=0)
    return ranges, ""


def _plain(
    q_BSND: Tensor,
    k_BTKD: Tensor,
    v_BTKD: Tensor,
    mask: AttentionMask,
    scale: float,
    slopes_N: np.ndarray | None,
    dropout: float,
) -> Tensor:
    batch, num_queries, num_heads, head_dim = q_BSND.shape
    num_keys, num_kv_heads = k_BTKD.shape[1], k_BTKD.shape[2]
    group = num_heads // num_kv_heads
    if paddle.in_dynamic_mode():  # matmul is 2 to 8 times slower on a slice of a cache than a copy and a matmul
        k_BTKD, v_BTKD = dense(k_BTKD), dense(v_BTKD)
    # The heads of a group lie one after the other on the query axis, so that keys need not be repeated.
    q_BKGSD = (q_BSND * scale).transpose([0, 2, 1, 3]).reshape([batch, num_kv_heads, group * num_queries, head_dim])
    scores = paddle.matmul(q_BKGSD, k_BTKD.transpose([0, 2, 3, 1])).astype("float32")
    scores_BKGST = scores.reshape([batch, num_kv_heads, group, num_queries, num_keys])
    if num_queries > 1 or mask.segments_BT is not None:
        scores_BKGST = scores_BKGST + _bias(mask, num_queries, num_keys)
    if slopes_N is not None:
        distances_BST = _distances(mask, num_queries, num_keys)
        bias_BNST = slopes_N[None, :, None, None] * distances_BST[:, None]
        shape = (-1, num_kv_heads, group, num_queries, num_keys)
        scores_BKGST = scores_BKGST + from_array(bias_BNST.reshape(shape))
    weights = F.softmax(scores_BKGST, axis=-1).astype(v_BTKD.dtype)
    if dropout > 0:
        weights = F.dropout(weights, dropout)
    weights = weights.reshape([batch, num_kv_heads, group * num_queries, num_keys])
    out = paddle.matmul(weights, v_BTKD.transpose([0, 2, 1, 3]))
    out_BNSD = out.reshape([batch, num_heads, num_queries, v_BTKD.shape[-1]])
    return cast("Tensor", out_BNSD.transpose([0, 2, 1, 3]))


def _bias(mask: AttentionMask, num_queries: int, num_keys: int) -> Tensor:
    """Return 0 for a key that is seen and ``_HIDDEN`` for one that is not, broadcastable to [B, K, G, S, T]."""
    if mask.segments_BT is None and mask.prefix_BT is None:
        return _causal_bias(num_queries, num_keys)
    seen_BST = dense_mask(mask, num_queries, num_keys)
    return (1.0 - seen_BST.astype("float32")).unsqueeze([1, 2]) * _HIDDEN


@lru_cache(maxsize=4)
def _causal_bias(num_queries: int, num_keys: int) -> Tensor:
    hidden_ST = paddle.full([num_queries, num_keys], _HIDDEN)
    return paddle.triu(hidden_ST, num_keys - num_queries + 1)


def _distances(mask: AttentionMask, num_queries: int, num_keys: int) -> np.ndarray:
    """Return the position of each key less that of each query, float32 [B or 1, S, T].

    Shared keys stand right before each sample, whatever lies between them in the row.
    """
    keys_T = np.arange(num_keys)
    distances_BST = (keys_T[None] - keys_T[num_keys - num_queries :, None])[None].astype(np.float32)
    if not mask.num_shared or mask.segments_BT is None:
        return distances_BST
    segments_BT = mask.segments_BT.numpy()[:, mask.num_shared :]
    begins_BT = np.ones(segments_BT.shape, bool)
    begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    starts_BT = np.maximum.accumulate(np.where(begins_BT, np.arange(segments_BT.shape[1]), 0), axis=1)
    moved_BST = np.repeat(distances_BST, len(segments_BT), axis=0)
    moved_BST[:, :, : mask.num_shared] += starts_BT[:, -num_queries:, None]
    return moved_BST


def dense_mask(mask: AttentionMask, num_queries: int, num_keys: int) -> Tensor:
    """Return bool [B or 1, S, T], True where a query sees a key: the definition of ``AttentionMask``."""
    keys_T = paddle.arange(num_keys)
    queries_S1 = keys_T[num_keys - num_queries :].unsqueeze(-1)
    seen_BST = (keys_T <= queries_S1).unsqueeze(0)
    if mask.prefix_BT is not None:
        seen_BST = seen_BST | mask.prefix_BT.unsqueeze(1)
    if mask.segments_BT is not None:
        key_segments_B1T = mask.segments_BT.unsqueeze(1)
        query_segments_BS1 = mask.segments_BT[:, num_keys - num_queries :].unsqueeze(-1)
        is_mine_BST = (query_segments_BS1 == key_segments_B1T) | (keys_T < mask.num_shared)
        seen_BST = seen_BST & is_mine_BST & (query_segments_BS1 > 0)
        seen_BST = seen_BST | (keys_T == queries_S1).unsqueeze(0)
    return seen_BST
