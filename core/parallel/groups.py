"""Process groups: ranks that reduce, gather and exchange tensors with each other.

On gloo every group gets a store of its own: groups that share one read each other's keys, and creating overlapping
groups of more than two ranks then fails at random (measured with Paddle 3.3.1).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

from .rendezvous import accept_all, connect, free_port, listen, wait_until_listening
from .wire import Wire

Backend = Literal["gloo", "nccl"]
Partition = tuple[tuple[int, ...], ...]
"""Groups that do not overlap, as ranks."""


@dataclass(slots=True)
class Group:
    """Ranks that work together, as one of them sees it."""

    name: str
    """For messages: the axes (``mp``), or ``stage 0 to 1``."""
    ranks: tuple[int, ...]
    """In ascending order."""
    rank: int
    """Of this process, in the whole run."""
    backend: Backend = "gloo"
    handle: Any = None
    """Paddle's group; ``None`` where this process is alone."""
    wire: Wire | None = None
    """``None`` where this process is alone."""
    store: Any = field(default=None, repr=False)
    """Kept alive: gloo still reads it."""

    @property
    def size(self) -> int:
        """Ranks in the group."""
        return len(self.ranks)

    @property
    def index(self) -> int:
        """Place of this process in ``ranks``."""
        return self.ranks.index(self.rank)

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to talk to."""
        return len(self.ranks) == 1

    def ready(self, what: str) -> None:
        """Wait for the others before a gloo call; NCCL has a time limit of its own and is not waited for.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        if self.backend == "gloo" and self.wire is not None:
            self.wire.meet(f"{what} of {self.name}")


def alone(name: str, rank: int = 0) -> Group:
    """Return the group of one rank, which needs nothing."""
    return Group(name, (rank,), rank)


class GroupFactory:
    """Creates groups; every rank must ask for the same ones in the same order, whether it is in them or not."""

    def __init__(self, world: Group, *, address: str, timeout_s: float) -> None:
        """Remember the group of all ranks.

        Args:
            world: with its wire.
            address: of this machine, as the other ranks reach it.
            timeout_s: seconds that a rank may be late, in this and in every group.
        """
        self.world = world
        self.address = address
        self.timeout_s = timeout_s
        self._known: dict[Partition, Group] = {(world.ranks,): world}
        self.created: list[Group] = [world]
        """Every group of this rank that has a wire."""

    def create(self, name: str, partition: Partition, *, shared: bool = True) -> Group:
        """Create groups that do not overlap, and return the one of this rank (alone, where it is in none).

        Args:
            name: for messages.
            partition: the groups, the same on all ranks.
            shared: a partition that exists already is not created again.

        Raises:
            DistributedError: a rank has gone or is late.
        """
        rank = self.world.rank
        if all(len(ranks) == 1 for ranks in partition):
            return alone(name, rank)
        if shared and partition in self._known:
            return self._known[partition]
        mine = next((ranks for ranks in partition if rank in ranks), (rank,))
        group = Group(name, mine, rank, self.world.backend)
        self._connect(group, partition)
        if shared:
            self._known[partition] = group
        if not group.is_alone:
            self.created.append(group)
        return group

    def _connect(self, group: Group, partition: Partition) -> None:
        """Open wire, store and Paddle's group; ranks outside take part in the counting of groups."""
        wire, hub = self.world.wire, group.ranks[0]
        assert wire is not None
        server = listen() if not group.is_alone and group.rank == hub else None
        offer = None if server is None else [self.address, server.getsockname()[1], free_port(), secrets.token_hex(8)]
        offers = dict(zip(self.world.ranks, wire.exchange_json(offer, f"creation of {group.name}"), strict=True))
        store = None
        if not group.is_alone:
            host, port, store_port, token = offers[hub]
            if server is not None:
                group.wire = accept_all(server, group.ranks, token=token, timeout_s=self.timeout_s)
            else:
                group.wire = connect((host, port), group.ranks, group.rank, token=token, timeout_s=self.timeout_s)
            if group.backend == "gloo":
                store = open_store(host, store_port, group, timeout_s=self.timeout_s)
        group.handle = _paddle_group(partition, group, store)


def open_store(host: str, port: int, group: Group, *, timeout_s: float) -> Any:
    """Open a store of Paddle's for one group: its first rank serves.

    Members wait until the server listens: Paddle's client would sleep for three seconds after a try that fails.
    """
    from paddle.base import core

    if group.index > 0:
        wait_until_listening((host, port), timeout_s=timeout_s)
    return core.TCPStore(host, port, group.index == 0, group.size, max(1, round(timeout_s)))


def _paddle_group(partition: Partition, group: Group, store: Any) -> Any:
    """Create all groups of a partition, as every rank must, and return the one of this rank."""
    import paddle.distributed as dist
    from paddle.distributed import collective

    main, found = collective._default_store, None
    for ranks in partition:
        if len(ranks) == 1:
            continue
        mine = ranks == group.ranks
        if mine and store is not None:
            collective._set_default_store(store)
            group.store = store
        try:
            made = dist.new_group(list(ranks), backend=group.backend)  # type: ignore[arg-type]  # gloo it takes too
        finally:
            collective._set_default_store(main)
        found = made if mine else found
    return found
