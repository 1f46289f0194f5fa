"""Run by four ranks: the groups of plans that overlap, and what a sum over each of them gives."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import paddle

from llm_run.core.parallel.collectives import all_reduce, all_to_all
from llm_run.core.parallel.exchange import Edge
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import SETS, Mesh
from llm_run.core.parallel.plan import ParallelPlan

PLANS = {
    "dp mp": ParallelPlan(dp=2, mp=2),
    "pieces": ParallelPlan(pp=4, virtual_pp=2),
    "two stages": ParallelPlan(pp=2, sharding=2, virtual_pp=2, order="sharding_first"),
}
"""The first is the one that the ranks start with; the groups of the others are made beside its own."""


def described(mesh: Mesh) -> dict[str, Any]:
    """Return the groups of a mesh with the sum of 2 ** rank over each, and where activations go round."""
    mine = paddle.to_tensor([float(2**mesh.rank)])
    sums = {" ".join(axes): all_reduce(mine, mesh.group(*axes)).item() for axes in SETS}
    return {
        "sums": sums,
        "ends": all_reduce(mine, mesh.ends).item(),
        "round": sent_on(mesh, mine),
        "exchange": all_to_all(mine.tile([4]), mesh.world, split_dim=0, join_dim=0).numpy().tolist(),
    }


def sent_on(mesh: Mesh, mine: paddle.Tensor) -> list[float]:
    """Send each stage's number one stage on, as often as there are edges, and return what came in."""
    found: list[float] = []
    edges: tuple[Edge | None, Edge | None] = (mesh.next_stage, mesh.previous_stage)
    if mesh.index("pp") % 2:
        edges = edges[::-1]
    for edge in edges:
        if edge is not None:
            found.append(edge.swap(mine)[0].item())
    return found if mesh.index("pp") % 2 == 0 else found[::-1]


def main(result: Path) -> None:
    """Describe the mesh of every plan."""
    first, *others = PLANS.items()
    with open_mesh(first[1], timeout_s=60) as mesh:
        found = {first[0]: described(mesh)}
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        for name, plan in others:
            found[name] = described(_mesh(plan, mesh.world, factory))
        mesh.meet("the end")
    result.write_text(json.dumps(found))


main(Path(sys.argv[1]))
