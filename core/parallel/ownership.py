"""Which rank answers for which block, where several hold the same one: it saves it, and counts it in sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .mesh import Mesh
from .slices import Part, Slice


@dataclass(frozen=True, slots=True)
class Ownership:
    """Of every tensor of this rank, the blocks that it answers for."""

    owned: Mapping[str, tuple[bool, ...]]
    """By name, for each of the part's slices."""
    names: frozenset[str]
    """Of the tensors of all ranks."""


def share_out(parts: Mapping[str, Part], mesh: Mesh) -> Ownership:
    """Agree with all ranks so that each block has one owner, and all have about as much to save.

    Args:
        parts: what this rank holds, by logical name.
        mesh: of this run; every rank must call this.

    Raises:
        DistributedError: a rank has gone or is late.
    """
    if mesh.is_alone:
        return Ownership({name: (True,) * len(part.slices) for name, part in parts.items()}, frozenset(parts))
    said = [[name, [[part.start, part.stop] for part in held.slices]] for name, held in parts.items()]
    everybody = mesh.gather(said, "the sharing out of tensors")
    holders: dict[tuple[str, Slice], list[int]] = {}
    for rank, theirs in enumerate(everybody):
        for name, slices in theirs:
            for start, stop in slices:
                holders.setdefault((name, Slice(tuple(start), tuple(stop))), []).append(rank)
    owners = _balanced(holders)
    owned = {name: tuple(owners[name, one] == mesh.rank for one in held.slices) for name, held in parts.items()}
    return Ownership(owned, frozenset(name for name, _ in holders))


def _balanced(holders: Mapping[tuple[str, Slice], list[int]]) -> dict[tuple[str, Slice], int]:
    """Give each block to the holder that has least so far, the largest blocks first; the same on every rank."""
    load: dict[int, int] = {}
    owners = {}
    for block in sorted(holders, key=lambda block: (-block[1].size, block[0], block[1].start)):
        owner = min(holders[block], key=lambda rank: (load.get(rank, 0), rank))
        load[owner] = load.get(owner, 0) + block[1].size
        owners[block] = owner
    return owners
