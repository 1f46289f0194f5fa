"""RMSNorm and LayerNorm over the last axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

from .native import differentiable
from .norm_gpu import gpu_layer_norm, gpu_rms_norm
from .norm_native import NativeNorm
from .select import uses_gpu, uses_native

if TYPE_CHECKING:
    from paddle import Tensor


def rms_norm(x_BSH: Tensor, weight_H: Tensor, *, eps: float) -> Tensor:
    """Divide ``x`` by the root of its mean square, then multiply by ``weight``.

    Computed in float32 and cast back to the dtype of ``x``. Any number of leading axes.

    Args:
        x_BSH: activations, any float dtype.
        weight_H: one factor per entry of the last axis.
        eps: added to the mean square.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.
    """
    if uses_native("norm", x_BSH, weight_H):
        return differentiable(NativeNorm, x_BSH, weight_H, None, eps, False)
    if uses_gpu("norm", x_BSH, weight_H) and x_BSH.dtype == weight_H.dtype:
        return gpu_rms_norm(x_BSH, weight_H, eps=eps)
    x32_BSH = x_BSH.astype("float32")
    scale_BS1 = paddle.rsqrt(x32_BSH.square().mean(axis=-1, keepdim=True) + eps)
    return (x32_BSH * scale_BS1).astype(x_BSH.dtype) * weight_H


def layer_norm(x_BSH: Tensor, weight_H: Tensor, bias_H: Tensor | None, *, eps: float) -> Tensor:
    """Centre ``x``, divide by its standard deviation, multiply by ``weight`` and add ``bias``.

    Computed in float32 and cast back to the dtype of ``x``. Any number of leading axes.

    Args:
        x_BSH: activations, any float dtype.
        weight_H: one factor per entry of the last axis.
        bias_H: one summand per entry of the last axis, or ``None``.
        eps: added to the variance.

    Source: Ba et al. 2016, arXiv:1607.06450, eq. 4.
    """
    if uses_native("norm", x_BSH, weight_H, *(() if bias_H is None else (bias_H,))):
        return differentiable(NativeNorm, x_BSH, weight_H, bias_H, eps, True)
    if uses_gpu("norm", x_BSH, weight_H) and x_BSH.dtype == weight_H.dtype:
        return gpu_layer_norm(x_BSH, weight_H, bias_H, eps=eps)
    x32_BSH = x_BSH.astype("float32")
    centred_BSH = x32_BSH - x32_BSH.mean(axis=-1, keepdim=True)
    scale_BS1 = paddle.rsqrt(centred_BSH.square().mean(axis=-1, keepdim=True) + eps)
    y_BSH = (centred_BSH * scale_BS1).astype(x_BSH.dtype) * weight_H
    return y_BSH if bias_H is None else y_BSH + bias_H
