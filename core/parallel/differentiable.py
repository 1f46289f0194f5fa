"""Collective operations with gradients, named by what they do forward and backward.

Which one belongs where, for a network whose ranks hold slices of its matrices:

- ``copy_then_reduce`` before a column-parallel matrix, ``reduce_then_copy`` after a row-parallel one;
- ``gather_then_split`` and ``split_then_gather`` where all ranks go on with the same whole tensor;
- ``gather_then_scatter`` and ``scatter_then_gather`` take their places in sequence parallelism;
- ``exchange`` swaps the dimension that is split: sequence for heads, and back.
"""

from __future__ import annotations

from typing import Any

from paddle import Tensor
from paddle.autograd import PyLayer

from ..ops.native import differentiable
from .collectives import all_gather, all_reduce, all_to_all, reduce_scatter, split
from .groups import Group


def copy_then_reduce(x: Tensor, group: Group) -> Tensor:
    """Return ``x``; its gradient is the sum of all ranks' gradients."""
    return x if group.is_alone else differentiable(_CopyThenReduce, x, group)


def reduce_then_copy(x: Tensor, group: Group) -> Tensor:
    """Return the sum of all ranks' ``x``; each rank's gradient is that of the sum."""
    return x if group.is_alone else differentiable(_ReduceThenCopy, x, group)


def gather_then_split(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Join all ranks' ``x`` along ``dim``, for ranks that all compute the same with it."""
    return x if group.is_alone else differentiable(_GatherThenSplit, x, group, dim)


def split_then_gather(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Return this rank's slice of an ``x`` that is the same on all ranks."""
    return x if group.is_alone else differentiable(_SplitThenGather, x, group, dim)


def gather_then_scatter(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Join all ranks' ``x`` along ``dim``; the gradient of a slice is the sum of what all ranks did with it."""
    return x if group.is_alone else differentiable(_GatherThenScatter, x, group, dim)


def scatter_then_gather(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Return this rank's slice along ``dim`` of the sum of all ranks' ``x``."""
    return x if group.is_alone else differentiable(_ScatterThenGather, x, group, dim)


def exchange(x: Tensor, group: Group, *, split_dim: int, join_dim: int) -> Tensor:
    """Give part i of ``x`` along ``split_dim`` to rank i, and join what comes along ``join_dim``."""
    return x if group.is_alone else differentiable(_Exchange, x, group, split_dim, join_dim)


class _CopyThenReduce(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient, ctx.group)


class _ReduceThenCopy(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return all_reduce(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()


class _GatherThenSplit(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return all_gather(x, group, dim=dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return split(gradient, ctx.group, dim=ctx.dim)


class _SplitThenGather(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return split(x, group, dim=dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_gather(gradient, ctx.group, dim=ctx.dim)


class _GatherThenScatter(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return all_gather(x, group, dim=dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return reduce_scatter(gradient, ctx.group, dim=ctx.dim)


class _ScatterThenGather(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return reduce_scatter(x, group, dim=dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_gather(gradient, ctx.group, dim=ctx.dim)


class _Exchange(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, split_dim: int, join_dim: int) -> Tensor:
        ctx.group, ctx.split_dim, ctx.join_dim = group, split_dim, join_dim
        return all_to_all(x, group, split_dim=split_dim, join_dim=join_dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_to_all(gradient, ctx.group, split_dim=ctx.join_dim, join_dim=ctx.split_dim)
