"""Attention of the engine's steps through Paddle's flash kernels: all sequences of a step in one call, or in two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle

from .attention_gpu import flash, head_obstacle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

    from .ragged import RaggedItem, RaggedMask


def ragged_obstacle(
    q_1SND: Tensor, k_1TKD: Tensor, v_1TKD: Tensor, mask: RaggedMask, slopes_N: np.ndarray | None
) -> str:
    """Return what keeps the kernels from doing a step, as half a sentence; empty where nothing does."""
    if found := head_obstacle(q_1SND, k_1TKD, v_1TKD, slopes_N):
        return found
    for item in mask.items:
        if item.mask.segments_BT is not None or item.mask.prefix_BT is not None:
            return "a prompt sees itself both ways, or is packed"
        # How a causal mask is aligned where there are fewer queries than keys, Paddle does not say.
        if item.num_queries not in (1, item.num_keys):
            return "a part of a prompt comes behind a cache"
    return ""


def gpu_ragged_attention(
    q_1SND: Tensor, k_1TKD: Tensor, v_1TKD: Tensor, mask: RaggedMask, *, scale: float | None
) -> Tensor:
    """Return what ``attention`` does, where ``ragged_obstacle`` found nothing.

    Whole prompts are causal; a single token sees all of its keys. A step that has both takes two calls.
    """
    scale = q_1SND.shape[-1] ** -0.5 if scale is None else scale
    queries, keys = _spans([item.num_queries for item in mask.items]), _spans([item.num_keys for item in mask.items])
    outs, places = [], []
    for is_prompt in (True, False):
        chosen = [number for number, item in enumerate(mask.items) if (item.num_queries > 1) is is_prompt]
        if chosen:
            rows_S = np.concatenate([queries[number] for number in chosen])
            keys_T = np.concatenate([keys[number] for number in chosen])
            items = [mask.items[number] for number in chosen]
            q_SND, k_TKD, v_TKD = _rows(q_1SND[0], rows_S), _rows(k_1TKD[0], keys_T), _rows(v_1TKD[0], keys_T)
            outs.append(_unpadded(q_SND, k_TKD, v_TKD, items, scale=scale, causal=is_prompt))
            places.append(rows_S)
    out_SND = outs[0] if len(outs) == 1 else _rows(paddle.concat(outs), np.argsort(np.concatenate(places)))
    return out_SND.unsqueeze(0)


def _unpadded(
    q_SND: Tensor, k_TKD: Tensor, v_TKD: Tensor, items: Sequence[RaggedItem], *, scale: float, causal: bool
) -> Tensor:
    queries, keys = [item.num_queries for item in items], [item.num_keys for item in items]
    ends = (
        paddle.to_tensor(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), place=q_SND.place)
        for lengths in (queries, keys)
    )
    out: Tensor
    out, _ = flash.flash_attn_unpadded(
        q_SND, k_TKD, v_TKD, *ends, max(queries), max(keys), scale, causal=causal, training=False
    )
    return out


def _spans(lengths: Sequence[int]) -> list[np.ndarray]:
    """Return the places of each sequence's tokens, one sequence after the other."""
    return np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])


def _rows(x_S: Tensor, places_S: np.ndarray) -> Tensor:
    if len(places_S) == x_S.shape[0] and (np.diff(places_S) == 1).all():
        return x_S
    return paddle.index_select(x_S, paddle.to_tensor(places_S.astype(np.int64), place=x_S.place))
