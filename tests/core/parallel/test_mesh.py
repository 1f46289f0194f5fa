"""One rank's view: alone, of two ranks, and of four with groups that overlap."""

from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.mesh import SETS, Mesh
from llm_run.core.parallel.plan import DATA, ParallelPlan

PLANS = {
    "dp mp": ParallelPlan(dp=2, mp=2),
    "pieces": ParallelPlan(pp=4, virtual_pp=2),
    "two stages": ParallelPlan(pp=2, sharding=2, virtual_pp=2, order="sharding_first"),
}
"""As in ``mesh_program.py``."""


def test_one_process_has_a_mesh_that_needs_nobody() -> None:
    with open_mesh(ParallelPlan(), timeout_s=1) as mesh:
        assert mesh == Mesh()
        assert mesh.is_alone and mesh.is_main and mesh.is_first_stage and mesh.is_last_stage
        assert (mesh.data_rank, mesh.data_world) == (0, 1)
        assert mesh.group(*DATA).is_alone and mesh.ends.is_alone
        assert (mesh.previous_stage, mesh.next_stage) == (None, None)
        assert mesh.agree_max(3) == 3
        assert mesh.gather("x", "a test") == ["x"]
        assert mesh.share("x", "a test") == "x"
        mesh.meet("a test")


def test_ranks_agree_on_the_largest_number_and_share_plain_values(two_ranks: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(two_ranks):
        values = found["values"]
        assert values["max"] == 15
        assert values["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert values["shared"] == ["from", 0]
        assert values["stage"] == [rank == 0, rank == 1]
        assert values["ends"] == [0, 1]


@pytest.mark.parametrize("name", PLANS)
def test_overlapping_groups_sum_over_the_ranks_of_the_plan(four_ranks: list[dict[str, Any]], name: str) -> None:
    plan = PLANS[name]
    for rank, found in enumerate(four_ranks):
        for axes in SETS:
            expected = sum(2**other for other in plan.group_of(rank, *axes))
            assert found[name]["sums"][" ".join(axes)] == expected, axes


@pytest.mark.parametrize("name", PLANS)
def test_first_and_last_stage_form_a_group(four_ranks: list[dict[str, Any]], name: str) -> None:
    plan = PLANS[name]
    for rank, found in enumerate(four_ranks):
        stages = plan.group_of(rank, "pp")
        ends = {stages[0], stages[-1]} if rank in (stages[0], stages[-1]) else {rank}
        assert found[name]["ends"] == sum(2**other for other in ends)


@pytest.mark.parametrize("name", PLANS)
def test_each_stage_reaches_the_next_and_the_previous_one(four_ranks: list[dict[str, Any]], name: str) -> None:
    plan = PLANS[name]
    for rank, found in enumerate(four_ranks):
        stages = plan.group_of(rank, "pp")
        here, count = stages.index(rank), len(stages)
        goes_round = plan.virtual_pp > 1
        neighbours = []
        if count > 1 and (here < count - 1 or goes_round):
            neighbours.append(stages[(here + 1) % count])
        if count > 1 and (here > 0 or goes_round):
            neighbours.append(stages[here - 1])
        assert found[name]["round"] == [2**other for other in neighbours]


def test_four_ranks_exchange_parts_with_each_other(four_ranks: list[dict[str, Any]]) -> None:
    for found in four_ranks:
        assert found["dp mp"]["exchange"] == [1, 2, 4, 8]
