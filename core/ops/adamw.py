"""The AdamW update over many tensors, and the norm that gradients are clipped by."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, cast

import numpy as np
import paddle

from .native import kernel
from .select import uses_native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor


def adamw_update(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    first_moments: Sequence[Tensor],
    second_moments: Sequence[Tensor],
    decays: Sequence[float],
    lr_scales: Sequence[float],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    grad_scale: float,
) -> None:
    """Update parameters and moments in place; the gradients are left alone.

    Args:
        params: float32 tensors.
        grads: their gradients, float32.
        first_moments: running means of the gradient, zeros before step 1.
        second_moments: running means of its square, zeros before step 1.
        decays: weight decay of each tensor, per unit of its learning rate.
        lr_scales: factor of each tensor on ``lr``.
        lr: learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment, after the correction of its bias.
        step: number of this update, from 1.
        grad_scale: factor on the gradients (clipping, loss scale).

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2.
    """
    step_size = lr / (1 - beta1**step)
    root_correction = 1 / math.sqrt(1 - beta2**step)
    tensors = (params, grads, first_moments, second_moments)
    if uses_native("adamw", *(tensor for group in tensors for tensor in group)):
        options = _Options(lr, beta1, beta2, eps, step_size, root_correction, grad_scale)
        sizes = np.array([param.size for param in params], dtype=np.int64)
        factors = [np.array(values, dtype=np.float32) for values in (decays, lr_scales)]
        pointers = [_pointers(group) for group in tensors]
        kernel("adamw")(
            *(array.ctypes.data for array in (*pointers, sizes, *factors)), len(params), ctypes.addressof(options)
        )
        return
    with paddle.no_grad():
        for param, grad, first, second, decay, scale in zip(*tensors, decays, lr_scales, strict=True):
            scaled = grad * grad_scale
            first.scale_(beta1).add_(scaled * (1 - beta1))
            second.scale_(beta2).add_(scaled.square_() * (1 - beta2))
            param.scale_(1 - lr * scale * decay)
            param.subtract_(first / (second.sqrt() * root_correction + eps) * (step_size * scale))


def global_norm(grads: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all gradients together; not finite where one of them is not."""
    if uses_native("adamw", *grads):
        # Both arrays must outlive the call: an address keeps nothing alive.
        pointers, sizes = _pointers(grads), np.array([grad.size for grad in grads], dtype=np.int64)
        return math.sqrt(kernel("square_sum")(pointers.ctypes.data, sizes.ctypes.data, len(grads)))
    with paddle.no_grad():
        squares = [grad.astype("float32").square().sum() for grad in grads]
        return math.sqrt(cast("float", paddle.add_n(squares).item())) if squares else 0.0


class _Options(ctypes.Structure):
    """``AdamW`` of csrc/adamw.cpp."""

    _fields_ = tuple(
        (name, ctypes.c_float) for name in ("lr", "beta1", "beta2", "eps", "step_size", "root_correction", "grad_scale")
    )


def _pointers(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.uint64)
