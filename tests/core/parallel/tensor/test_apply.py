"""What ``parallelize`` makes of a model, seen from one rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import paddle
import pytest
from paddle import nn

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import build_empty
from llm_run.core.convert.logical import parameters
from llm_run.core.errors import PluginError
from llm_run.core.ops import alibi_slopes
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.tensor.apply import parallelize
from llm_run.core.parallel.tensor.build import build_random
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.facts import ShardingRule

from .cases import cases
from .conftest import drawn

Meshes = Callable[..., Mesh]


def split(name: str, mesh: Mesh, model: CausalLM | None = None) -> CausalLM:
    family, config = cases()[name]
    rules = family.sharding_map(config)
    assert rules is not None
    return parallelize(drawn(name) if model is None else model, rules, mesh)


def test_without_tensor_parallelism_a_model_stays_what_it_is() -> None:
    model = drawn("llama-tiny")
    kind, layers = type(model), dict(model.named_sublayers())
    assert split("llama-tiny", Mesh(), model) is model
    assert type(model) is kind and dict(model.named_sublayers()) == layers
    assert all(part.local_shape == part.shape for part in model_parts(model).values())


@pytest.mark.parametrize("name", cases())
def test_parameters_keep_their_names_and_their_order(name: str, lonely_mesh: Meshes) -> None:
    whole = drawn(name)
    names = list(parameters(whole))
    model = split(name, lonely_mesh(2, 1), whole)
    assert list(parameters(model)) == names
    assert {each: tuple(p.shape) for each, p in parameters(model).items()} == {
        each: part.local_shape for each, part in model_parts(model).items()
    }


def test_a_model_without_memory_gets_none(lonely_mesh: Meshes) -> None:
    model = split("llama-tiny", lonely_mesh(2, 0), build_empty(*cases()["llama-tiny"]))
    assert not any(parameter._is_initialized() for parameter in model.parameters())
    assert parameters(model)["blocks.0.feed_forward.down_proj.weight"].shape == [88, 64]


def test_slopes_are_those_of_the_ranks_own_heads(lonely_mesh: Meshes) -> None:
    model = split("bloom-tiny", lonely_mesh(2, 1))
    for block in model.blocks:
        np.testing.assert_array_equal(block.attention.slopes_N, alibi_slopes(6)[3:])


def test_what_is_not_learnt_stays_so(lonely_mesh: Meshes) -> None:
    model = drawn("llama-tiny")
    for parameter in model.parameters():
        parameter.stop_gradient = True
    assert all(parameter.stop_gradient for parameter in split("llama-tiny", lonely_mesh(4, 0), model).parameters())


def test_a_layer_that_cannot_be_split_is_the_plugins_fault(lonely_mesh: Meshes) -> None:
    model = drawn("llama-tiny")
    rules = tuple(
        ShardingRule(name, "row" if name == "norm.weight" else "replicate") for name, _ in model.named_parameters()
    )
    with pytest.raises(PluginError) as refusal:
        parallelize(model, rules, lonely_mesh(2, 0))
    assert str(refusal.value) == "the family's sharding map splits layer norm, which is RmsNorm, not Linear."


def test_a_rank_never_holds_more_than_its_part_and_one_parameter(lonely_mesh: Meshes) -> None:
    family, config = cases()["llama-tiny"]
    config = replace(config, num_layers=24, num_kv_heads=4, vocab_size=512)
    core = paddle.base.core
    before = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    model = build_random(family, config, lonely_mesh(4, 3))
    peak = core.host_memory_stat_peak_value("Allocated", 0) - before
    shapes = [parameter.shape for parameter in build_empty(family, config).parameters()]
    whole, largest = (4 * pick(int(np.prod(shape)) for shape in shapes) for pick in (sum, max))
    assert sum(4 * parameter.size for parameter in model.parameters()) < 0.27 * whole
    assert peak < 0.3 * whole + 2 * largest < 0.5 * whole


def test_a_layer_of_another_kind_is_left_alone_where_nothing_splits_it(lonely_mesh: Meshes) -> None:
    model = split("gpt3-tiny", lonely_mesh(2, 0))
    assert type(model.embed_positions) is nn.Embedding
