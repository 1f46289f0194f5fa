"""Attention through the C++ kernels, for float32 on CPU."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle.autograd import PyLayer

from .native import dense, kernel

if TYPE_CHECKING:
    from paddle import Tensor

Ranges = tuple[np.ndarray, np.ndarray]


class _Call(ctypes.Structure):
    """``Attention`` of csrc/attention.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "queries", "keys", "heads", "kv_heads", "size")),
        *((name, ctypes.c_int64) for name in ("k_batch", "k_token", "v_batch", "v_token")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("slopes", "lowest", "highest")),
    )


class NativeAttention(PyLayer):
    """``attention`` without dropout, over ranges of visible keys (``None``: plain causal)."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BSND: Tensor,
        k_BTKD: Tensor,
        v_BTKD: Tensor,
        ranges: Ranges | None,
        scale: float,
        slopes_N: np.ndarray | None,
    ) -> Tensor:
        q_BSND, k_BTKD, v_BTKD = dense(q_BSND), _dense_heads(k_BTKD), _dense_heads(v_BTKD)
        call = _describe(q_BSND, k_BTKD, v_BTKD, ranges, scale, slopes_N)
        out_BSND = paddle.empty_like(q_BSND)
        log_sums_BNS = paddle.empty([call.batch, call.heads, call.queries], dtype="float32")
        kernel("attention_forward")(
            ctypes.addressof(call), *(t.data_ptr() for t in (q_BSND, k_BTKD, v_BTKD, out_BSND, log_sums_BNS))
        )
        ctx.save_for_backward(q_BSND, k_BTKD, v_BTKD, out_BSND, log_sums_BNS)
        ctx.call, ctx.arrays = call, (ranges, slopes_N)
        ctx.wanted = [not tensor.stop_gradient for tensor in (q_BSND, k_BTKD, v_BTKD)]
        return out_BSND

    @staticmethod
    def backward(ctx: Any, d_out_BSND: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved = ctx.saved_tensor()
        grads = [paddle.empty(tensor.shape, dtype="float32") for tensor in saved[:3]]
        tensors = (*saved, dense(d_out_BSND), *grads)
        kernel("attention_backward")(ctypes.addressof(ctx.call), *(tensor.data_ptr() for tensor in tensors))
        return tuple(grad if wanted else None for grad, wanted in zip(grads, ctx.wanted, strict=True))


def _describe(
    q_BSND: Tensor,
    k_BTKD: Tensor,
    v_BTKD: Tensor,
    ranges: Ranges | None,
    scale: float,
    slopes_N: np.ndarray | None,
) -> _Call:
    batch, queries, heads, size = q_BSND.shape
    keys, kv_heads = k_BTKD.shape[1], k_BTKD.shape[2]
    strides = (*k_BTKD.strides[:2], *v_BTKD.strides[:2])
    slopes = None if slopes_N is None else slopes_N.ctypes.data
    lowest, highest = (None, None) if ranges is None else (side.ctypes.data for side in ranges)
    return _Call(batch, queries, keys, heads, kv_heads, size, *strides, scale, slopes, lowest, highest)


def _dense_heads(x_BTKD: Tensor) -> Tensor:
    """Return keys or values whose heads lie side by side; tokens may be apart, as in a cache with room to grow."""
    size = x_BTKD.shape[3]
    return x_BTKD if x_BTKD.strides[2:] == [size, 1] else x_BTKD.contiguous()
