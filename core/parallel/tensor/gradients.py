"""Parameters that several tensor-parallel ranks hold alike, while each sees only a part of what they are used for.

Their gradients are summed as they arrive in the backward pass, so that whoever reads ``parameter.grad`` (optimizer,
norm, sharding) finds the whole one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle

from ..collectives import all_reduce, all_reduce_in_place

if TYPE_CHECKING:
    from paddle import Tensor

    from ..groups import Group


def sum_gradient(parameter: Any, group: Group) -> None:
    """Let the gradient of ``parameter`` be the sum over all ranks of ``group``."""
    if not parameter.stop_gradient:
        parameter.register_hook(lambda gradient: all_reduce(gradient, group))


def sum_gradient_of_copies(parameter: Any, group: Group, *, copies: int) -> None:
    """Let the gradient of ``parameter`` be the sum over the ranks that hold the same of it.

    Args:
        parameter: the rank's own.
        group: all tensor-parallel ranks; each ``copies`` neighbours hold the same.
        copies: ranks that hold the same.
    """
    if copies == 1 or parameter.stop_gradient:
        return
    mine, different = group.index // copies, group.size // copies

    def reduce(gradient: Tensor) -> Tensor:
        # In one sum over all ranks, each writing to its own place: neighbours have no group of their own.
        empty = paddle.zeros_like(gradient)
        places = paddle.stack([gradient if place == mine else empty for place in range(different)])
        all_reduce_in_place(places, group)
        return places[mine]

    parameter.register_hook(reduce)
