"""Degrees from options, what they must fit, and the nearest plan that works."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from llm_run.core.config.groups import LaunchOptions
from llm_run.core.parallel.degrees import Shape, check_plan, fill_plan, nearest_plan, plan_notes
from llm_run.core.parallel.plan import ParallelPlan, padded_vocabulary

SHAPE = Shape(
    num_heads=12, num_kv_heads=4, num_layers=6, ffn_size=96, vocab_size=1000, length=64, micro_batches=4
)  # fmt: skip


def options(**degrees: Any) -> LaunchOptions:
    names = {
        "mp": "tensor_parallel_degree", "pp": "pipeline_parallel_degree", "sep": "sep_parallel_degree",
        "degree": "sharding_parallel_degree", "virtual": "virtual_pp_degree", "order": "hybrid_parallel_topo_order",
    }  # fmt: skip
    return LaunchOptions(**{names.get(name, name): value for name, value in degrees.items()})


def problems(world: int, shape: Shape = SHAPE, **degrees: Any) -> list[str]:
    plan = fill_plan(options(**degrees), world)
    return [str(problem) for problem in check_plan(plan, world, ("--nproc_per_node", str(world)), shape)]


@pytest.mark.parametrize(
    ("world", "degrees", "expected"),
    [
        (1, {}, {}),
        (8, {}, {"dp": 8}),
        (8, {"mp": 2, "pp": 2}, {"dp": 2, "mp": 2, "pp": 2}),
        (8, {"mp": 2, "sharding": "stage2"}, {"sharding": 4, "mp": 2, "sharding_stage": 2}),
        (8, {"degree": 2, "sharding": "stage1"}, {"dp": 4, "sharding": 2, "sharding_stage": 1}),
        (8, {"degree": 2}, {"dp": 8}),
        (2, {"mp": 2, "sharding": "stage3"}, {"mp": 2}),
        (4, {"pp": 2, "virtual": 3}, {"dp": 2, "pp": 2, "virtual_pp": 3}),
        (2, {"virtual": 3, "sequence_parallel": True}, {"dp": 2}),
        (2, {"mp": 2, "sequence_parallel": True}, {"mp": 2, "sequence_parallel": True}),
        (2, {"sep": 2, "order": "sharding_first"}, {"sep": 2, "order": "sharding_first"}),
    ],
)
def test_degrees_are_filled_in_as_the_seed_does(world: int, degrees: dict[str, Any], expected: dict[str, Any]) -> None:
    assert fill_plan(options(**degrees), world) == ParallelPlan(**expected)


@pytest.mark.parametrize(
    ("degrees", "note"),
    [
        ({"sharding": "stage1", "mp": 2}, "sharding: off, since there is one rank to share between"),
        ({"degree": 2}, "sharding_parallel_degree: not read, since sharding is empty"),
        ({"sequence_parallel": True}, "sequence_parallel: off, since tensor_parallel_degree is 1"),
        ({"virtual": 2}, "virtual_pp_degree: not read, since pipeline_parallel_degree is 1"),
    ],
)
def test_what_the_plan_has_no_use_for_is_noted(degrees: dict[str, Any], note: str) -> None:
    launch = options(**degrees)
    assert plan_notes(launch, fill_plan(launch, 2)) == [note]


@pytest.mark.parametrize(
    ("world", "degrees", "said"),
    [
        (4, {"mp": 2, "pp": 2}, []),
        (8, {"mp": 8}, ["--tensor_parallel_degree: 8 does not divide the 12 attention heads of the model. "
                        "Use --tensor_parallel_degree 4."]),
        (6, {"mp": 6}, ["--tensor_parallel_degree: 6 neither divides the 4 key/value heads of the model nor is a "
                        "multiple of them. Use --tensor_parallel_degree 2."]),
        (8, {"pp": 8}, ["--pipeline_parallel_degree: 8 is more than the 6 layers of the model. "
                        "Use --pipeline_parallel_degree 4."]),
        (4, {"pp": 4, "virtual": 2}, ["--virtual_pp_degree: 2 makes 8 pieces of the 6 layers of the model. "
                                      "Use --virtual_pp_degree 1."]),
        (3, {"pp": 3, "virtual": 2}, ["--virtual_pp_degree: 2 needs gradient_accumulation_steps (4) to be a multiple "
                                      "of the 3 stages. Use --virtual_pp_degree 1."]),
        (16, {"mp": 4, "sep": 4}, ["--sep_parallel_degree: 4 does not divide the 3 attention heads of each "
                                   "tensor-parallel rank. Use --sep_parallel_degree 1."]),
        (2, {"mp": 4}, ["--nproc_per_node: 2 makes 2 processes in all, which is no multiple of 4, the product of the "
                        "degrees. Start 4 processes, or use --tensor_parallel_degree 2."]),
        (6, {"mp": 2, "pp": 2}, ["--nproc_per_node: 6 makes 6 processes in all, which is no multiple of 4, the product "
                                 "of the degrees. Start 8 processes, or use --pipeline_parallel_degree 1."]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_the_nearest_plan(world: int, degrees: dict[str, Any], said: list[str]) -> None:
    assert problems(world, **degrees) == said


@pytest.mark.parametrize(
    ("shape", "degrees", "said"),
    [
        (replace(SHAPE, ffn_size=97), {"mp": 2}, "--tensor_parallel_degree: 2 does not divide the feed-forward width"),
        (replace(SHAPE, vocab_size=5), {"mp": 4}, "--tensor_parallel_degree: 4 leaves a rank without any of the 5"),
        (replace(SHAPE, length=65), {"sep": 2}, "--sep_parallel_degree: 2 cuts rows of max_length 65 into 2, which"),
        (SHAPE, {"pp": 2, "sharding": "stage3"},
         "--sharding: stage3 does not go with the 2 stages of a pipeline. Use --sharding stage1."),
    ],
)  # fmt: skip
def test_numbers_of_the_model_and_the_rows_are_checked(shape: Shape, degrees: dict[str, Any], said: str) -> None:
    (found,) = problems(4, shape, **degrees)
    assert found.startswith(said)


def test_rows_of_any_length_are_split_since_they_are_filled_up() -> None:
    assert problems(2, replace(SHAPE, length=65), mp=2, sequence_parallel=True) == []


def test_all_misfits_of_a_plan_come_at_once() -> None:
    said = problems(8, mp=5, pp=7)
    assert [text.split(": ")[0] for text in said] == [
        "--tensor_parallel_degree", "--tensor_parallel_degree", "--pipeline_parallel_degree", "--nproc_per_node",
    ]  # fmt: skip
    assert said[-1].endswith("Start 35 processes.")


def works(plan: ParallelPlan, world: int, shape: Shape) -> bool:
    """Whether a plan can be computed, by the definition of each axis."""
    pieces = plan.pp * plan.virtual_pp
    return (
        plan.world_size == world
        and shape.num_heads % plan.mp == 0
        and (shape.num_kv_heads % plan.mp == 0 or plan.mp % shape.num_kv_heads == 0)
        and shape.ffn_size % plan.mp == 0
        and padded_vocabulary(shape.vocab_size, plan.mp) // plan.mp * (plan.mp - 1) < shape.vocab_size
        and pieces <= shape.num_layers
        and (plan.virtual_pp == 1 or (plan.pp > 1 and shape.micro_batches % plan.pp == 0))
        and shape.num_heads // plan.mp % plan.sep == 0
        and shape.length % plan.sep == 0
        and (plan.pp == 1 or plan.sharding_stage < 2)
    )


def test_the_check_agrees_with_the_definition_and_its_advice_always_works() -> None:
    for world, mp, pp, sep, virtual in itertools.product((1, 2, 4, 6, 12), (1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2)):
        plan = fill_plan(options(mp=mp, pp=pp, sep=sep, virtual=virtual, sharding="stage1"), world)
        found = check_plan(plan, world, ("--nproc_per_node", str(world)), SHAPE)
        assert (found == []) == works(plan, world, SHAPE), plan
        nearest = nearest_plan(plan, world, SHAPE)
        assert works(nearest, world, SHAPE)
        assert nearest == plan or found
        assert all("Use" in problem.remedy or "use" in problem.remedy or "Start" in problem.remedy for problem in found)
