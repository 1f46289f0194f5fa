"""Become one of several processes: meet the others, start Paddle's communication, create the groups of the plan.

Data are prepared before this is called, so that nobody waits for another rank's index building.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

from ..config.groups import LaunchOptions
from ..errors import DistributedError, Problem, RefusedError
from ..launch.record import note_failure
from ..launch.world import find_world
from .degrees import fill_plan
from .exchange import Edge
from .groups import Backend, Group, GroupFactory, Partition
from .membership import JOB, Membership, find_membership
from .mesh import SETS, Mesh
from .plan import ParallelPlan
from .rendezvous import accept_all, connect, free_port, listen, local_address, wait_until_listening
from .wire import Wire


@contextlib.contextmanager
def open_mesh(plan: ParallelPlan, *, timeout_s: float) -> Iterator[Mesh]:
    """Give this rank its mesh; hang up when the block is left, so that the others do not wait for it.

    Args:
        plan: of as many ranks as there are processes; without other processes it must be a plan of one rank.
        timeout_s: of ``dist_timeout``: seconds that a rank may be late, now and at every later meeting.

    Raises:
        DistributedError: the ranks do not find each other, or have different plans.
        RefusedError: the variables that say who this process is are wrong, or rank 0's port is taken.
    """
    membership = find_membership(os.environ)
    if membership is None:
        assert plan.world_size == 1, "the plan is checked against the processes before a task starts"
        yield Mesh(plan=plan)
        return
    assert plan.world_size == membership.size, "the plan is checked against the processes before a task starts"
    world = _world(membership, plan, timeout_s)
    created = [world]
    try:
        address = membership.master[0] if membership.rank == 0 else local_address(membership.master[0])
        factory = GroupFactory(world, address=address, timeout_s=timeout_s)
        created = factory.created
        yield _mesh(plan, world, factory)
    except BaseException as error:
        note_failure(error)  # before the others can see that this rank hangs up, and fail because of it
        raise
    finally:
        for group in created:
            if group.wire is not None:
                group.wire.close()


def mesh_of(launch: LaunchOptions) -> contextlib.AbstractContextManager[Mesh]:
    """Return ``open_mesh`` for the options of a run: what a training task enters once its data are ready."""
    plan = fill_plan(launch, find_world(launch).size)
    return open_mesh(plan, timeout_s=launch.dist_timeout)


def _world(membership: Membership, plan: ParallelPlan, timeout_s: float) -> Group:
    """Meet all ranks and start Paddle's default group."""
    rank, ranks = membership.rank, tuple(range(membership.size))
    wire = _meet(membership, ranks, timeout_s)
    try:
        _compare_plans(wire, plan)
        store_port = wire.exchange_json(free_port() if rank == 0 else None, "the choice of a port")[0]
        backend = _tell_paddle(membership, store_port, timeout_s)
        if rank > 0:
            wait_until_listening((membership.master[0], store_port), timeout_s=timeout_s)
        handle = _start_paddle()
        os.environ |= membership.variables()  # as they were: what else looks at them finds rank 0 where it listens
        return Group("all ranks", ranks, rank, backend, handle=handle, wire=wire)
    except BaseException as error:
        note_failure(error)
        wire.close()
        raise


def _meet(membership: Membership, ranks: tuple[int, ...], timeout_s: float) -> Wire:
    host, port = membership.master
    token = f"{os.environ.get(JOB, '')} {membership.size}"
    if membership.rank > 0:
        return connect((host, port), ranks, membership.rank, token=token, timeout_s=timeout_s)
    try:
        server = listen(port)
    except OSError as error:
        reason = f"cannot be listened on by rank 0: {error.strerror}"
        raise RefusedError(Problem("PADDLE_MASTER", f"{host}:{port}", reason, "Give a free port.")) from error
    return accept_all(server, ranks, token=token, timeout_s=timeout_s)


def _compare_plans(wire: Wire, plan: ParallelPlan) -> None:
    """Make sure that all ranks were started with the same degrees."""
    plans = wire.exchange_json(repr(plan), "the comparison of plans")
    other = next((rank for rank, theirs in enumerate(plans) if theirs != plans[0]), None)
    if other is not None:
        text = f"rank {other} was started with another plan than rank 0 ({plans[other]}, not {plans[0]})"
        raise DistributedError(f"{text}. Give all ranks the same options.", ranks=(other,))


def _tell_paddle(membership: Membership, store_port: int, timeout_s: float) -> Backend:
    """Set the variables that ``init_parallel_env`` reads, whoever started this process; return what it will use."""
    from paddle.device import get_device

    kind, _, number = str(get_device()).partition(":")
    backend: Backend = "nccl" if kind == "gpu" else "gloo"
    rank, host = membership.rank, membership.master[0]
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    os.environ |= {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(membership.size),
        "PADDLE_MASTER": f"{host}:{store_port}",
        "PADDLE_DISTRI_BACKEND": backend,
        "PADDLE_PG_TIMEOUT": str(round(1000 * timeout_s)),
    }
    os.environ.setdefault("PADDLE_CURRENT_ENDPOINT", f"{host}:{store_port + rank}")
    if kind == "gpu":
        os.environ["FLAGS_selected_gpus"] = number
    return backend


def _start_paddle() -> Any:
    """Create Paddle's group of all ranks, without its remarks on flags."""
    import paddle.distributed as dist

    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return dist.init_parallel_env()


def _mesh(plan: ParallelPlan, world: Group, factory: GroupFactory) -> Mesh:
    """Create the groups of the plan, on every rank in the same order."""
    groups = {axes: factory.create(" x ".join(axes), plan.groups(*axes)) for axes in SETS}
    stages = plan.groups("pp")
    ends = factory.create("first and last stage", _pairs(stages, [(0, plan.pp - 1)]))
    return Mesh(plan=plan, rank=world.rank, world=world, groups=groups, ends=ends, **_edges(plan, factory))


def _edges(plan: ParallelPlan, factory: GroupFactory) -> dict[str, Edge | None]:
    """Create the connections between neighbouring stages: every second one at a time, since those do not overlap."""
    stages, here = plan.groups("pp"), plan.coordinates(factory.world.rank)["pp"]
    found: dict[str, Edge | None] = {"previous_stage": None, "next_stage": None}
    edges = [(stage, stage + 1) for stage in range(plan.pp - 1)]
    for name, some in (("even edges", edges[::2]), ("odd edges", edges[1::2])):
        group = factory.create(name, _pairs(stages, some), shared=False)
        if not group.is_alone:
            low, high = next(edge for edge in some if here in edge)
            group.name = f"stages {low} and {high}"
            found["next_stage" if here == low else "previous_stage"] = Edge(group)
    if plan.virtual_pp > 1:
        group = factory.create("last stage to first", _pairs(stages, [(0, plan.pp - 1)]), shared=False)
        if not group.is_alone:
            found["previous_stage" if here == 0 else "next_stage"] = Edge(group)
    return found


def _pairs(stages: Partition, pairs: list[tuple[int, int]]) -> Partition:
    """Return the groups of two stages each, in every pipeline."""
    return tuple((ranks[low], ranks[high]) for ranks in stages for low, high in pairs if low != high)
