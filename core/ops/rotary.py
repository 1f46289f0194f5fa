"""Rotary position embedding: tables of cosine and sine, and the rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle.autograd import PyLayer

from .from_array import from_array
from .native import dense, differentiable, kernel
from .rotary_gpu import gpu_rotary
from .rotary_spec import ntk_exponent
from .select import uses_gpu, uses_native

if TYPE_CHECKING:
    from paddle import Tensor

    from .rotary_spec import RotarySpec, Style


def rotary_tables(spec: RotarySpec, positions_BS: Tensor, *, num_tokens: int | None = None) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every position, float32 [B, S, R] each, R = dim/2.

    Args:
        spec: which rotary embedding.
        positions_BS: integer positions.
        num_tokens: longest sequence so far, for the scalings that depend on it. ``None``: row by row, what the
            largest position of the row says, so that a row does not depend on its neighbours in the batch.
    """
    if num_tokens is None:
        if spec.scaling is not None and spec.scaling.kind in ("dynamic", "dynamic_pow2"):
            return (_tables_by_row if paddle.in_dynamic_mode() else _tables_in_graph)(spec, positions_BS)
        num_tokens = 0
    angles, factor = spec.inverse_wavelengths(num_tokens)
    angles_R = from_array(np.array(angles, dtype=np.float32))
    angles_BSR = positions_BS.astype("float32").unsqueeze(-1) * angles_R
    cos_BSR, sin_BSR = paddle.cos(angles_BSR), paddle.sin(angles_BSR)
    return (cos_BSR, sin_BSR) if factor == 1.0 else (cos_BSR * factor, sin_BSR * factor)


def _tables_by_row(spec: RotarySpec, positions_BS: Tensor) -> tuple[Tensor, Tensor]:
    longest_B = [int(last) + 1 for last in positions_BS.max(axis=1).numpy()]
    if len({spec.inverse_wavelengths(longest)[0][-1] for longest in longest_B}) == 1:
        return rotary_tables(spec, positions_BS, num_tokens=longest_B[0])
    rows = [
        rotary_tables(spec, positions_BS[row : row + 1], num_tokens=longest) for row, longest in enumerate(longest_B)
    ]
    return paddle.concat([cos for cos, _ in rows]), paddle.concat([sin for _, sin in rows])


def _tables_in_graph(spec: RotarySpec, positions_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Do what ``_tables_by_row`` does where the positions have no values yet."""
    angles_BR = growing_angles(spec, positions_BS.max(axis=1) + 1)
    angles_BSR = positions_BS.astype("float32").unsqueeze(-1) * angles_BR.unsqueeze(1)
    return paddle.cos(angles_BSR), paddle.sin(angles_BSR)


def growing_angles(spec: RotarySpec, longest_B: Tensor) -> Tensor:
    """Return ``spec.inverse_wavelengths`` of a dynamic kind of scaling for each row, float32 [B, R].

    Computed in float64, as ``inverse_wavelengths`` is.

    Args:
        spec: its scaling is ``dynamic`` or ``dynamic_pow2``.
        longest_B: int64, tokens of each row.
    """
    scaling = spec.scaling
    assert scaling is not None and spec.depends_on_length
    stretch_B = longest_B.astype("float64") / scaling.original_max_positions
    if scaling.kind == "dynamic_pow2":
        growth_B = (2.0 ** (paddle.log2(stretch_B).ceil() + 1) - 1).clip(min=1.0)
    else:
        growth_B = scaling.factor * stretch_B.clip(min=1.0) - (scaling.factor - 1)
    base_B1 = (spec.base * growth_B ** ntk_exponent(spec.dim)).unsqueeze(-1)
    powers_R = paddle.to_tensor(np.arange(spec.dim // 2, dtype=np.float64) * (-2.0 / spec.dim))
    return (base_B1**powers_R).astype("float32")


def apply_rotary(x_BSND: Tensor, tables: tuple[Tensor, ...], *, style: Style) -> Tensor:
    """Rotate the first 2R entries of every head, and pass the rest.

    Computed in float32 and cast back to the dtype of ``x``.

    Args:
        x_BSND: queries or keys.
        tables: what ``rotary_tables`` returned.
        style: whether entry i turns with i + R (``half``) or 2i with 2i + 1 (``interleaved``).
    """
    if uses_native("rotary", x_BSND, *tables):
        return differentiable(_NativeRotary, x_BSND, tables[0], tables[1], style == "interleaved")
    if uses_gpu("rotary", x_BSND, *tables):
        return gpu_rotary(x_BSND, tables, style=style)
    cos_BS1R, sin_BS1R = tables[0].unsqueeze(2), tables[1].unsqueeze(2)
    rotated = 2 * cos_BS1R.shape[-1]
    x32_BSND = x_BSND.astype("float32")
    turning_BSND = x32_BSND if rotated == x_BSND.shape[-1] else x32_BSND[..., :rotated]
    if style == "half":
        first, second = turning_BSND.chunk(2, axis=-1)
    else:
        first, second = turning_BSND[..., 0::2], turning_BSND[..., 1::2]
    turned = (first * cos_BS1R - second * sin_BS1R, second * cos_BS1R + first * sin_BS1R)
    if style == "half":
        out_BSND = paddle.concat(turned, axis=-1)
    else:
        out_BSND = paddle.stack(turned, axis=-1).flatten(3)
    if rotated < x_BSND.shape[-1]:
        out_BSND = paddle.concat([out_BSND, x32_BSND[..., rotated:]], axis=-1)
    return out_BSND.astype(x_BSND.dtype)


class _NativeRotary(PyLayer):
    """The rotation by the C++ kernel; no gradient flows into the tables."""

    @staticmethod
    def forward(ctx: Any, x_BSND: Tensor, cos_BSR: Tensor, sin_BSR: Tensor, interleaved: bool) -> Tensor:
        ctx.tables, ctx.interleaved = (dense(cos_BSR), dense(sin_BSR)), interleaved
        return _rotate(x_BSND, ctx.tables, interleaved, 1.0)

    @staticmethod
    def backward(ctx: Any, dy_BSND: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _rotate(dy_BSND, ctx.tables, ctx.interleaved, -1.0), None, None


def _rotate(x_BSND: Tensor, tables: tuple[Tensor, ...], interleaved: bool, sign: float) -> Tensor:
    x_BSND = dense(x_BSND)
    batch, length, heads, size = x_BSND.shape
    rows, _, pairs = tables[0].shape
    y_BSND = paddle.empty_like(x_BSND)
    cosine, sine = tables[0].data_ptr(), tables[1].data_ptr()
    tokens, table_tokens = batch * length, rows * length
    kernel("rotary")(
        x_BSND.data_ptr(), cosine, sine, sign, interleaved, tokens, table_tokens, heads, size, pairs, y_BSND.data_ptr()
    )
    return y_BSND
