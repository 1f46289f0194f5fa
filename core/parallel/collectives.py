"""Collective operations on tensors, the same on gloo and NCCL. None of them is seen by the autograd.

What gloo lacks is built from what it has: reduce-scatter from all-reduce, all-to-all from one scatter a rank, or from
sends between two. A group of one rank gives every tensor back as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import paddle
import paddle.distributed as dist
from paddle import Tensor

from .groups import Group

Op = Literal["sum", "max"]


def all_reduce(x: Tensor, group: Group, *, op: Op = "sum") -> Tensor:
    """Return the sum or maximum of all ranks' ``x``; a new tensor, the same on every rank.

    float16 is summed in float32 on gloo, which returns inf otherwise.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    if group.is_alone:
        return x
    whole = x.detach()
    result = whole.astype("float32") if _is_half_on_gloo(x, group) else whole.clone()
    all_reduce_in_place(result, group, op=op)
    return result.astype(x.dtype)


def all_reduce_in_place(x: Tensor, group: Group, *, op: Op = "sum") -> None:
    """Overwrite a contiguous ``x`` with the sum or maximum of all ranks' ``x`` (gradient buckets).

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    if group.is_alone:
        return
    assert x.is_contiguous(), "gloo takes contiguous tensors only, and leaves the other ranks waiting"
    assert not _is_half_on_gloo(x, group), "gloo sums float16 to inf"
    group.ready(_called("all_reduce", op, x))
    dist.all_reduce(x, op=dist.ReduceOp.SUM if op == "sum" else dist.ReduceOp.MAX, group=group.handle)


def begin_all_reduce(x: Tensor, group: Group) -> Callable[[], object]:
    """Begin to overwrite a contiguous ``x`` with the sum of all ranks' ``x``; the result ends it, and must be called.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    assert x.is_contiguous() and not _is_half_on_gloo(x, group)
    group.ready(_called("all_reduce", "sum", x))
    task = dist.all_reduce(x, group=group.handle, sync_op=False)
    wait: Callable[[], object] = task.wait
    return wait


def all_gather(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Return all ranks' ``x``, in the order of the group, joined along ``dim``.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    return x if group.is_alone else paddle.concat(all_gather_parts(x, group), axis=dim)


def all_gather_parts(x: Tensor, group: Group) -> list[Tensor]:
    """Return all ranks' ``x``, in the order of the group, not joined.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    if group.is_alone:
        return [x]
    group.ready(_called("all_gather", "", x))
    parts: list[Tensor] = []
    dist.all_gather(parts, x.detach().contiguous(), group=group.handle)
    return parts


def all_gather_flat(x: Tensor, group: Group) -> Tensor:
    """Return all ranks' ``x``, in the order of the group, in one tensor of one dimension: no second copy is made.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    whole = x.detach().contiguous().reshape([-1])
    if group.is_alone:
        return whole
    group.ready(_called("all_gather", "", whole))
    joined = paddle.empty([group.size * whole.size], dtype=whole.dtype)
    dist.stream.all_gather(joined, whole, group=group.handle)
    return joined


def reduce_scatter(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Return this rank's slice along ``dim`` of the sum of all ranks' ``x``.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    if group.is_alone:
        return x
    if group.backend == "gloo":
        return split(all_reduce(x, group), group, dim=dim)
    parts = [part.contiguous() for part in paddle.split(x.detach(), group.size, axis=dim)]
    result = paddle.empty_like(parts[0])
    dist.reduce_scatter(result, parts, group=group.handle)
    return result


def reduce_scatter_in_place(flat: Tensor, group: Group) -> Tensor:
    """Return this rank's share of the sum of all ranks' ``flat``, which is used up: no second one of it is made.

    Args:
        flat: contiguous, with one dimension that divides by the ranks of the group.
        group: of the ranks.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    if group.is_alone or group.backend != "gloo":
        return reduce_scatter(flat, group, dim=0)
    all_reduce_in_place(flat, group)
    return split(flat, group, dim=0).clone()  # a view would keep all of ``flat``


def split(x: Tensor, group: Group, *, dim: int) -> Tensor:
    """Return this rank's slice of ``x`` along ``dim``; nothing is sent."""
    if group.is_alone:
        return x
    length, rest = divmod(x.shape[dim], group.size)
    assert rest == 0, f"dim {dim} of {x.shape} does not split into {group.size}"
    return paddle.slice(x.detach(), [dim % x.ndim], [group.index * length], [(group.index + 1) * length]).contiguous()


def broadcast(x: Tensor, group: Group, *, source: int = 0) -> Tensor:
    """Return the ``x`` of the rank at place ``source`` of the group; shape and dtype must be the same on all ranks.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    if group.is_alone:
        return x
    result = x.detach().clone().contiguous()
    group.ready(_called("broadcast", str(source), x))
    dist.broadcast(result, src=group.ranks[source], group=group.handle)
    return result


def all_to_all(x: Tensor, group: Group, *, split_dim: int, join_dim: int) -> Tensor:
    """Cut ``x`` along ``split_dim``, give part i to rank i, and join what comes from all ranks along ``join_dim``.

    Raises:
        DistributedError: a rank has gone, is late, or came with another shape.
    """
    if group.is_alone:
        return x
    parts = [part.contiguous() for part in paddle.split(x.detach(), group.size, axis=split_dim)]
    group.ready(_called("all_to_all", f"{split_dim} {join_dim}", x))
    if group.backend == "gloo":
        received = _swap(parts, group) if group.size == 2 else _scatter_in_turn(parts, group)
    else:
        received = [paddle.empty_like(part) for part in parts]
        dist.alltoall(received, parts, group=group.handle)
    return paddle.concat(received, axis=join_dim)


def _swap(parts: Sequence[Tensor], group: Group) -> list[Tensor]:
    """Send one way, then the other: 33 ms for 16 MiB a rank where two scatters take 77."""
    received, peer = list(parts), 1 - group.index
    received[peer] = paddle.empty_like(parts[peer])
    for call in (dist.send, dist.recv) if group.index == 0 else (dist.recv, dist.send):
        call(parts[peer] if call is dist.send else received[peer], group.ranks[peer], group=group.handle)
    return received


def _scatter_in_turn(parts: Sequence[Tensor], group: Group) -> list[Tensor]:
    """Let each rank in turn give its parts away; ordered sends among three or more fail, since gloo counts the calls
    of a group."""
    received = [paddle.empty_like(part) for part in parts]
    for turn, source in enumerate(group.ranks):
        mine = list(parts) if turn == group.index else None
        dist.scatter(received[turn], mine, src=source, group=group.handle)
    return received


def _is_half_on_gloo(x: Tensor, group: Group) -> bool:
    return bool(x.dtype == paddle.float16) and group.backend == "gloo"


def _called(name: str, how: str, x: Tensor) -> str:
    """Name a call with all that must agree between ranks: a peer with a smaller buffer would abort the process."""
    return f"{name}({how}) on {str(x.dtype).removeprefix('paddle.')} {list(x.shape)}"
