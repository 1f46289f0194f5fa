"""Attention through Paddle's flash kernels, for float16 and bfloat16 on a GPU."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from .gpu import is_half

if TYPE_CHECKING:
    from paddle import Tensor

    from .mask import AttentionMask

LARGEST_HEAD, HEAD_STEP = 256, 8
"""Sizes of a head that the kernels have."""
# The package has a function of the module's name, which hides it from ``import``.
flash: Any = import_module("paddle.nn.functional.flash_attention")


def obstacle(
    q_BSND: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: AttentionMask, *, scale: float | None,
    slopes_N: np.ndarray | None,
) -> str:  # fmt: skip
    """Return what keeps the kernels from doing a call, as half a sentence; empty where nothing does."""
    queries = q_BSND.shape[1]
    is_plain = mask.segments_BT is None and mask.prefix_BT is None
    if found := head_obstacle(q_BSND, k_BTKD, v_BTKD, slopes_N):
        return found
    if scale is not None and scale != q_BSND.shape[3] ** -0.5:
        return "they scale by the size of a head"
    if queries != k_BTKD.shape[1] and not (queries == 1 and is_plain):
        return "they take whole sequences, or one token behind a cache"
    if not is_plain and _key_ranges(mask, q_BSND.shape[0]) is None:
        return "a segment of the mask is in several pieces, or a prefix is not its start"
    return ""


def head_obstacle(q_BSND: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, slopes_N: np.ndarray | None) -> str:
    """Return what of dtype and heads keeps every flash kernel from doing a call; empty where nothing does."""
    head_dim = q_BSND.shape[3]
    if not is_half(q_BSND):
        return "they compute in 16 bits"
    if slopes_N is not None:
        return "they have no linear biases"
    if k_BTKD.shape != v_BTKD.shape or head_dim > LARGEST_HEAD or head_dim % HEAD_STEP:
        return f"they take heads of up to {LARGEST_HEAD}, a multiple of {HEAD_STEP}, keys and values alike"
    return ""


def gpu_attention(
    q_BSND: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: AttentionMask, *, dropout: float
) -> Tensor:  # fmt: skip
    """Return what ``attention`` does, where ``obstacle`` found nothing.

    Source: Dao 2023, arXiv:2307.08691; Wang et al. 2024, arXiv:2410.01359 (masks as ranges of rows by key).
    """
    if mask.segments_BT is None and mask.prefix_BT is None:
        # One query sees every key; Paddle aligns a causal mask with the first key, not with the last.
        is_causal = q_BSND.shape[1] > 1
        out, _ = flash.flash_attention(q_BSND, k_BTKD, v_BTKD, dropout=dropout, causal=is_causal, training=dropout > 0)
        return out  # type: ignore[no-any-return]
    ranges_BT2 = _key_ranges(mask, q_BSND.shape[0])
    assert ranges_BT2 is not None
    return flash.flashmask_attention(  # type: ignore[no-any-return]
        q_BSND, k_BTKD, v_BTKD, paddle.to_tensor(ranges_BT2[:, None], place=q_BSND.place),
        dropout=dropout, causal=False, training=dropout > 0,
    )  # fmt: skip


def _key_ranges(mask: AttentionMask, batch: int) -> np.ndarray | None:
    """Return for each key the row from which on no query sees it, and the row before which none does: int32 [B, T, 2].

    ``None`` where a key is not seen by one range of queries.
    """
    from .mask import visible_ranges

    given = mask.segments_BT if mask.segments_BT is not None else mask.prefix_BT
    assert given is not None, "a plain causal mask needs no ranges"
    if mask.num_shared:
        return None
    num_tokens = given.shape[1]
    ranges = visible_ranges(mask, num_tokens, num_tokens)
    if ranges is None:
        return None
    # Queries of a segment begin at one key, and the first of them sees the prefix and nothing else.
    low_BT, high_BT = ranges
    columns_T = np.arange(num_tokens)
    prefix_end_BT = np.take_along_axis(high_BT, low_BT.astype(np.int64), axis=1)
    first_BT = np.where(columns_T < prefix_end_BT, low_BT, columns_T)
    begins_BT = np.full(low_BT.shape, num_tokens)
    begins_BT[:, :-1][low_BT[:, 1:] != low_BT[:, :-1]] = 0
    begins_BT = np.where(begins_BT == 0, columns_T + 1, num_tokens)
    end_BT = np.minimum.accumulate(begins_BT[:, ::-1], axis=1)[:, ::-1]
    found = np.stack([end_BT, first_BT], axis=-1).astype(np.int32)
    return found if len(found) == batch else np.repeat(found, batch, axis=0)
