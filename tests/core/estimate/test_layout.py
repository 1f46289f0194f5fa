"""What a plan says that ranks hold, against what ranks really build; their peers do not exist."""

from __future__ import annotations

import math

import pytest

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.convert.logical import parameters
from llm_run.core.estimate.layout import Layout
from llm_run.core.estimate.shapes import shapes_of
from llm_run.core.parallel.groups import Group
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sharding import hold
from llm_run.core.parallel.shards import shards_of
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.manager import installed, load_family

FAMILIES = sorted(installed().families)


def lonely_mesh(plan: ParallelPlan, rank: int) -> Mesh:
    """The mesh of one rank of a plan, which can say nothing to the others."""
    groups = {
        (axis,): Group(axis, plan.group_of(rank, axis), rank) for axis in ("mp", "sharding") if plan.degree(axis) > 1
    }
    return Mesh(plan=plan, rank=rank, groups=groups)  # type: ignore[arg-type]


@pytest.mark.parametrize("family_name", FAMILIES)
def test_a_rank_builds_what_the_plan_says_that_it_holds(family_name: str) -> None:
    family = load_family(family_name)
    config = family.card.sizes["tiny"]
    plan = ParallelPlan(mp=2, pp=2)
    layout = Layout(shapes_of(family, config), plan)
    for rank in range(plan.world_size):
        part = build_part(family, config, lonely_mesh(plan, rank), None)
        share = layout.rank(rank)
        assert {name: tuple(tensor.shape) for name, tensor in parameters(part.model).items()} == share.model
        assert part.cut is not None
        assert share.sections == tuple(tuple(one.blocks) for one in part.cut.of_stage(share.coordinates["pp"]))
        assert share.kept == share.computed == share.updated == sum(map(math.prod, share.model.values()))


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("family_name", FAMILIES)
def test_a_rank_updates_the_rows_that_the_plan_counts(family_name: str, stage: int) -> None:
    family = load_family(family_name)
    config = family.card.sizes["tiny"]
    plan = ParallelPlan(mp=2, sharding=3, sharding_stage=stage)
    layout = Layout(shapes_of(family, config), plan)
    for rank in (0, 3, 5):
        mesh = lonely_mesh(plan, rank)
        model = build_part(family, config, mesh, None).model
        held = hold(model, mesh, model_parts(model))
        share = layout.rank(rank)
        updated = sum(int(tensor.size) for tensor in held.tensors.values())
        kept = updated + sum(int(tensor.size) for tensor in model.parameters() if tensor._is_initialized())
        assert share.updated == updated
        assert share.kept == (kept if stage == 3 else kept - updated)


def test_a_rank_of_stage_3_keeps_rows_of_what_an_adapter_is_added_to() -> None:
    family = load_family("llama")
    config, settings = family.card.sizes["tiny"], LoraSettings(rank=4, alpha=8)
    plan = ParallelPlan(sharding=3, sharding_stage=3)
    layout = Layout(shapes_of(family, config, settings), plan)
    for rank in range(3):
        mesh = lonely_mesh(plan, rank)
        model = build_part(family, config, mesh, None).model
        rows = sum(int(tensor.size) for tensor in shards_of(model).values())
        held = hold(new_adapter(model, family, settings), mesh, model_parts(model))
        assert not any(parameter._is_initialized() for parameter in model.parameters())
        assert layout.rank(rank).kept == rows + sum(int(tensor.size) for tensor in held.tensors.values())


def test_codes_are_whole_on_every_rank_of_stage_3() -> None:
    family = load_family("llama")
    config, settings = family.card.sizes["tiny"], LoraSettings(rank=4, alpha=8)
    shapes, plan = shapes_of(family, config, settings), ParallelPlan(sharding=2, sharding_stage=3)
    coded = [name for name in shapes.model if name.startswith("blocks.") and name.endswith("_proj.weight")]
    plain, share = Layout(shapes, plan).rank(0), Layout(shapes, plan, coded).rank(0)
    assert share.frozen_whole == sum(math.prod(shapes.model[name]) for name in coded) > 0
    assert share.kept - plain.kept == pytest.approx(share.frozen_whole / 2, rel=0.01)


@pytest.mark.parametrize("dora", [False, True])
def test_a_rank_trains_the_part_of_an_adapter_that_the_plan_says(dora: bool) -> None:
    family = load_family("llama")
    config, settings = family.card.sizes["tiny"], LoraSettings(rank=4, alpha=8, dora=dora)
    plan = ParallelPlan(mp=2)
    share = Layout(shapes_of(family, config, settings), plan).rank(1)
    with pytest.MonkeyPatch.context() as patch:
        # The lengths of columns of a matrix that is cut by rows are sums over both ranks.
        patch.setattr("llm_run.core.adapters.lora_split.all_reduce", lambda x, group: x)
        part = build_part(family, config, lonely_mesh(plan, 1), None, shares_rows=False)
        model = new_adapter(part.model, family, settings)
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if not p.stop_gradient}
    assert trained == share.trained
    assert share.is_frozen and share.kept == share.computed + share.updated


def test_ranks_that_differ_in_their_samples_alone_hold_the_same() -> None:
    family = load_family("llama")
    layout = Layout(shapes_of(family, family.card.sizes["tiny"]), ParallelPlan(dp=2, mp=2))
    first, other = layout.rank(0), layout.rank(2)
    assert first.model == other.model
    assert (first.groups, other.groups) == ({"dp": (0, 2), "mp": (0, 1)}, {"dp": (0, 2), "mp": (2, 3)})
