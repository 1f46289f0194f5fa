from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.parallel.groups import Group
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.shards import shards_of
from llm_run.core.parallel.slices import Part
from llm_run.core.parallel.tensor.arrays import put
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.parallel.units import even_rows
from llm_run.core.registry.manager import load_family

MP, SHARDING = 2, 3


def lonely_mesh(rank: int) -> Mesh:
    """The mesh of one rank of six whose peers do not exist; it builds what it would have among them."""
    plan = ParallelPlan(mp=MP, sharding=SHARDING, sharding_stage=3)
    place = plan.coordinates(rank)
    groups = {("mp",): Group("mp", (0, 1), place["mp"]), ("sharding",): Group("sharding", (0, 1, 2), place["sharding"])}
    return Mesh(plan=plan, rank=rank, groups=groups)  # type: ignore[arg-type]


def built(family_name: str, size: str, weights: Path | None, rank: int) -> CausalLM:
    family = load_family(family_name)
    paddle.seed(3)
    return build_part(family, family.card.sizes[size], lonely_mesh(rank), weights).model


def joined(models: list[CausalLM]) -> dict[str, np.ndarray]:
    """Put the logical parameters together from what all ranks have."""
    found: dict[str, np.ndarray] = {}
    for rank, model in enumerate(models):
        index = lonely_mesh(rank).index("sharding")
        for name, part in model_parts(model).items():
            rows: Part = part.rows(*even_rows(part.local_shape[0], SHARDING)[index])
            whole = found.setdefault(name, np.full(part.shape, np.nan, dtype=np.float32))
            put(shards_of(model)[name].numpy(), whole, rows)
    return found


@pytest.mark.parametrize(("family_name", "size"), [("llama", "tiny-tied"), ("chatglm2", "tiny"), ("opt", "tiny")])
def test_rows_that_ranks_draw_are_those_of_one_process_to_the_bit(family_name: str, size: str, tmp_path: Path) -> None:
    family = load_family(family_name)
    config = family.card.sizes[size]
    paddle.seed(3)
    model = family.build_model(config)
    save_model_directory(model, family, config, None, tmp_path / "model")
    for weights in (None, tmp_path / "model"):
        found = joined([built(family_name, size, weights, rank) for rank in range(MP * SHARDING)])
        whole = parameters(model)
        assert found.keys() == whole.keys()
        for name, parameter in whole.items():
            np.testing.assert_array_equal(found[name], parameter.numpy(), err_msg=name)


def test_a_rank_never_has_more_of_a_model_than_its_rows_and_one_tensor() -> None:
    from paddle.base import core

    family = load_family("llama")
    config = family.card.sizes["tiny"]
    mesh = Mesh(
        plan=ParallelPlan(sharding=4, sharding_stage=3), groups={("sharding",): Group("sharding", (0, 1, 2, 3), 0)}
    )
    largest, draw = 0, paddle.base.framework.EagerParamBase.initialize

    def noting(parameter: paddle.Tensor) -> None:
        nonlocal largest
        draw(parameter)
        largest = max(largest, core.host_memory_stat_current_value("Allocated", 0) - start)

    gc.collect()
    start = core.host_memory_stat_current_value("Allocated", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paddle.base.framework.EagerParamBase, "initialize", noting)
        model = build_part(family, config, mesh, None).model
    sizes = [4 * int(parameter.size) for parameter in model.parameters()]
    assert not any(parameter._is_initialized() for parameter in model.parameters())
    assert sum(sizes) / 4 <= largest < 1.2 * (sum(sizes) / 4 + max(sizes))


def test_a_model_whose_rows_are_not_shared_has_values() -> None:
    family = load_family("llama")
    mesh = Mesh(plan=ParallelPlan(sharding=2, sharding_stage=3), groups={("sharding",): Group("sharding", (0, 1), 0)})
    model = build_part(family, family.card.sizes["tiny"], mesh, None, shares_rows=False).model
    assert not shards_of(model)
    assert all(parameter._is_initialized() for parameter in model.parameters())
