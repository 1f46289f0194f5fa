"""RMSNorm and LayerNorm through the C++ kernels, for float32 on CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle
from paddle.autograd import PyLayer

from .native import dense, kernel

if TYPE_CHECKING:
    from paddle import Tensor


class NativeNorm(PyLayer):
    """``rms_norm``, or ``layer_norm`` where ``centred``."""

    @staticmethod
    def forward(ctx: Any, x_BSH: Tensor, weight_H: Tensor, bias_H: Tensor | None, eps: float, centred: bool) -> Tensor:
        x_BSH = dense(x_BSH)
        size = weight_H.shape[0]
        rows = x_BSH.size // size
        y_BSH = paddle.empty_like(x_BSH)
        statistics_2R = paddle.empty([2 if centred else 1, rows], dtype="float32")
        scale = statistics_2R.data_ptr()
        mean = scale + 4 * rows if centred else None
        bias = None if bias_H is None else bias_H.data_ptr()
        kernel("norm_forward")(
            x_BSH.data_ptr(), weight_H.data_ptr(), bias, eps, rows, size, y_BSH.data_ptr(), scale, mean
        )
        ctx.save_for_backward(x_BSH, weight_H, statistics_2R)
        ctx.wanted = [tensor is not None and not tensor.stop_gradient for tensor in (x_BSH, weight_H, bias_H)]
        ctx.has_bias, ctx.centred = bias_H is not None, centred
        return y_BSH

    @staticmethod
    def backward(ctx: Any, dy_BSH: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_BSH, weight_H, statistics_2R = ctx.saved_tensor()
        dy_BSH = dense(dy_BSH)
        size = weight_H.shape[0]
        rows = x_BSH.size // size
        dx_BSH, dw_H = paddle.empty_like(x_BSH), paddle.empty_like(weight_H)
        db_H = paddle.empty_like(weight_H) if ctx.has_bias else None
        scale = statistics_2R.data_ptr()
        kernel("norm_backward")(
            x_BSH.data_ptr(),
            weight_H.data_ptr(),
            dy_BSH.data_ptr(),
            scale,
            scale + 4 * rows if ctx.centred else None,
            rows,
            size,
            dx_BSH.data_ptr(),
            dw_H.data_ptr(),
            None if db_H is None else db_H.data_ptr(),
        )
        grads = (dx_BSH, dw_H, db_H) if ctx.has_bias else (dx_BSH, dw_H)
        return tuple(grad if wanted else None for grad, wanted in zip(grads, ctx.wanted, strict=False))
