"""Rotary position embedding through Paddle's fused kernel, on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle.incubate.nn import functional as fused

if TYPE_CHECKING:
    from paddle import Tensor

    from .rotary_spec import Style


def gpu_rotary(x_BSND: Tensor, tables: tuple[Tensor, ...], *, style: Style) -> Tensor:
    """Return what ``apply_rotary`` does, computed in float32.

    The kernel takes one table for all rows, so the rows are put one after the other.
    """
    batch, length, heads, size = x_BSND.shape
    rotated = 2 * tables[0].shape[-1]
    cos, sin = (_spread(table, batch, style).reshape([1, batch * length, 1, rotated]) for table in tables)
    turning = x_BSND[..., :rotated].astype("float32").reshape([1, batch * length, heads, rotated])
    # Paddle's word is the other way round: "neox" turns neighbours, and without it entry i turns with i + R.
    turned, _, _ = fused.fused_rotary_position_embedding(
        turning, sin=sin, cos=cos, use_neox_rotary_style=style == "interleaved"
    )
    out_BSND = turned.reshape([batch, length, heads, rotated]).astype(x_BSND.dtype)
    return out_BSND if rotated == size else paddle.concat([out_BSND, x_BSND[..., rotated:]], axis=-1)


def _spread(table_BSR: Tensor, batch: int, style: Style) -> Tensor:
    """Return a value for each entry of a head instead of one for each pair, for every row of the batch."""
    both = (
        paddle.concat([table_BSR, table_BSR], axis=-1)
        if style == "half"
        else paddle.repeat_interleave(table_BSR, 2, axis=-1)
    )
    return both.expand([batch, -1, -1]).astype("float32")
