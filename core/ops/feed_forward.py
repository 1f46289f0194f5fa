"""Activations of the feed-forward part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .native import dense, differentiable, kernel
from .select import uses_gpu, uses_native

if TYPE_CHECKING:
    from paddle import Tensor


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, elementwise over two tensors of one shape.

    Source: Shazeer 2020, arXiv:2002.05202, eq. 6, without its matrices.
    """
    if uses_native("swiglu", gate, up):
        return differentiable(_NativeSwiglu, gate, up)
    if uses_gpu("swiglu", gate, up):
        return F.swiglu(gate, up)
    return F.silu(gate) * up


def gelu(x: Tensor, *, tanh: bool) -> Tensor:
    """Return x * Phi(x), exactly or by the tanh approximation.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
    """
    return F.gelu(x, approximate=tanh)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return F.relu(x)


class _NativeSwiglu(PyLayer):
    """silu(gate) * up by the C++ kernel."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = dense(gate), dense(up)
        y = paddle.empty_like(gate)
        kernel("swiglu_forward")(gate.data_ptr(), up.data_ptr(), gate.size, y.data_ptr())
        ctx.save_for_backward(gate, up)
        ctx.wanted = (not gate.stop_gradient, not up.stop_gradient)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gate, up = ctx.saved_tensor()
        dy = dense(dy)
        grads = paddle.empty_like(gate), paddle.empty_like(gate)
        kernel("swiglu_backward")(
            gate.data_ptr(), up.data_ptr(), dy.data_ptr(), gate.size, grads[0].data_ptr(), grads[1].data_ptr()
        )
        return tuple(grad if wanted else None for grad, wanted in zip(grads, ctx.wanted, strict=True))
