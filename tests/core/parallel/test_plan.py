"""The grid of ranks, against its definition spelt out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from llm_run.core.parallel.plan import AXES, DATA, ORDERS, REPLICAS, Axis, ParallelPlan, padded_vocabulary


def plans(*, most: int) -> Iterator[ParallelPlan]:
    """Yield every plan of at most ``most`` ranks, in both orders."""
    for dp, pp, sharding, sep, mp in itertools.product(range(1, 5), repeat=5):
        if dp * pp * sharding * sep * mp <= most:
            for order in ORDERS:
                yield ParallelPlan(dp=dp, pp=pp, sharding=sharding, sep=sep, mp=mp, order=order)


ALL = list(plans(most=24))


def places(plan: ParallelPlan) -> list[dict[Axis, int]]:
    """Return the coordinates of all ranks by counting: the last axis of the order is the fastest."""
    order = ORDERS[plan.order]
    spans = [range(plan.degree(axis)) for axis in order]
    return [dict(zip(order, at, strict=True)) for at in itertools.product(*spans)]


def test_ranks_are_numbered_along_the_grid_the_last_axis_fastest() -> None:
    assert len(ALL) > 500
    for plan in ALL:
        for rank, place in enumerate(places(plan)):
            assert plan.coordinates(rank) == place
            assert plan.rank_at(place) == rank


@pytest.mark.parametrize("axes", [*((axis,) for axis in AXES), DATA, REPLICAS, ("pp", "mp")])
def test_a_group_holds_the_ranks_that_differ_along_its_axes_alone(axes: tuple[Axis, ...]) -> None:
    for plan in ALL:
        where = places(plan)
        groups = plan.groups(*axes)
        assert sorted(rank for group in groups for rank in group) == list(range(plan.world_size))
        assert [group[0] for group in groups] == sorted(group[0] for group in groups)
        for rank, mine in enumerate(where):
            others = tuple(
                other
                for other, theirs in enumerate(where)
                if all(mine[axis] == theirs[axis] for axis in AXES if axis not in axes)
            )
            assert plan.group_of(rank, *axes) == others
            assert others in groups


def test_data_ranks_are_numbered_as_in_the_seed_and_count_up_within_a_data_group() -> None:
    for plan in ALL:
        for rank, place in enumerate(places(plan)):
            assert plan.data_rank(rank) == plan.sharding * place["dp"] + place["sharding"]
            group = plan.group_of(rank, *DATA)
            assert [plan.data_rank(other) for other in group] == list(range(plan.data_world))


def test_tensor_parallel_ranks_are_neighbours_and_the_order_decides_between_pp_and_sharding() -> None:
    plan = ParallelPlan(dp=2, pp=2, sharding=2, mp=2)
    assert plan.groups("mp")[0] == (0, 1)
    assert plan.group_of(0, "sharding") == (0, 2)
    assert plan.group_of(0, "pp") == (0, 4)
    other = ParallelPlan(dp=2, pp=2, sharding=2, mp=2, order="sharding_first")
    assert other.group_of(0, "sharding") == (0, 4)
    assert other.group_of(0, "pp") == (0, 2)


@pytest.mark.parametrize("rank", [-1, 4])
def test_a_rank_outside_the_plan_is_an_error(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} is not one of 4"):
        ParallelPlan(dp=4).coordinates(rank)


def test_a_vocabulary_is_padded_to_the_next_multiple() -> None:
    assert [padded_vocabulary(size, 4) for size in (1, 4, 5, 8)] == [4, 4, 8, 8]
