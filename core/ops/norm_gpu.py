"""RMSNorm and LayerNorm through Paddle's fused kernels, on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle.nn.functional as F

if TYPE_CHECKING:
    from paddle import Tensor


def gpu_rms_norm(x_BSH: Tensor, weight_H: Tensor, *, eps: float) -> Tensor:
    """Return what ``rms_norm`` does; ``x`` and ``weight`` have one dtype."""
    out_BSH, _ = F.rms_norm(x_BSH, [x_BSH.shape[-1]], weight_H, eps)
    return out_BSH


def gpu_layer_norm(x_BSH: Tensor, weight_H: Tensor, bias_H: Tensor | None, *, eps: float) -> Tensor:
    """Return what ``layer_norm`` does."""
    return F.layer_norm(x_BSH, [x_BSH.shape[-1]], weight_H, bias_H, eps)
