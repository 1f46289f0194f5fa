"""Whether Paddle's fused GPU kernels can run, and which of its functions are called for them.

None of them has been run here: no GPU was there. What a test can show without one, it shows: the choice, the
signatures, and the mapping of arguments onto functions that compute what Paddle documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddle import Tensor

OPS = ("attention", "norm", "rotary", "swiglu", "quantized_linear")
"""Operators with a variant of Paddle's fused kernels."""
UNTESTED = "Paddle's fused kernels, untested: written without a GPU"


def absence() -> str:
    """Return why the kernels cannot run here, as half a sentence; empty where they can."""
    from ..launch.framework import DISTRIBUTIONS, installed_paddle

    found = installed_paddle()
    if found is None or found[0] != DISTRIBUTIONS[0]:  # known without importing Paddle
        return "the installed Paddle is built for CPUs"
    import paddle

    if not paddle.device.is_compiled_with_cuda():
        return "the installed Paddle is built for CPUs"
    if not paddle.device.cuda.device_count():
        return "no GPU was found"
    return "" if paddle.device.get_device().startswith("gpu") else "the run computes on the CPU"


def takes(tensor: Tensor) -> bool:
    """Say whether a tensor is on a GPU, and not a node of a static graph."""
    import paddle

    return isinstance(tensor, paddle.Tensor) and paddle.in_dynamic_mode() and tensor.place.is_gpu_place()


def is_half(tensor: Tensor) -> bool:
    """Say whether a tensor is float16 or bfloat16, which some kernels ask for."""
    import paddle

    return tensor.dtype in (paddle.float16, paddle.bfloat16)


def has_tensor_cores() -> bool:
    """Say whether the GPU is of compute capability 7.5 or later: the layout of packed integers is another before."""
    import paddle

    return paddle.device.cuda.get_device_capability() >= (7, 5)
