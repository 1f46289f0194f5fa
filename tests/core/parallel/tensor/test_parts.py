"""From sharding maps to parts: nothing is lost or counted twice, and fused matrices are cut where they join."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llm_run.core.errors import PluginError
from llm_run.core.parallel.slices import Part
from llm_run.core.parallel.tensor.arrays import cut, put
from llm_run.core.parallel.tensor.parts import Rules, find_parts
from llm_run.core.registry.facts import ModelConfig, ShardingRule

from .cases import cases
from .conftest import drawn

LLAMA = cases()["llama-tiny"][1]
"""4 heads of 16, 2 key/value heads."""


def parts_over(shape: tuple[int, ...], rule: ShardingRule, degree: int, config: ModelConfig = LLAMA) -> list[Part]:
    return [find_parts({"x": shape}, config, (rule,), degree=degree, index=index)["x"] for index in range(degree)]


@pytest.mark.parametrize("degree", [1, 2, 4])
@pytest.mark.parametrize("name", cases())
def test_parts_of_every_family_put_together_are_the_whole_to_the_bit(name: str, degree: int) -> None:
    family, config = cases()[name]
    if config.num_heads % degree:
        pytest.skip(f"{config.num_heads} heads do not split over {degree} ranks, which is refused before a run")
    rules = family.sharding_map(config)
    assert rules is not None
    values = {each: parameter.numpy() for each, parameter in drawn(name).named_parameters()}
    shapes = {each: array.shape for each, array in values.items()}
    by_rank = [find_parts(shapes, config, rules, degree=degree, index=index) for index in range(degree)]
    for each, array in values.items():
        merged, owners = np.full_like(array, np.nan), np.zeros(array.shape, dtype=int)
        for parts in by_rank:
            local = cut(array, parts[each])
            assert local.shape == parts[each].local_shape
            put(local, merged, parts[each])
            for there in parts[each].slices:
                owners[there.index()] += parts[each].is_owner
        np.testing.assert_array_equal(merged, array, err_msg=each)
        assert (owners == 1).all(), each


def test_a_vocabulary_that_does_not_divide_leaves_less_to_the_last_rank() -> None:
    parts = parts_over((10, 3), ShardingRule("x", "vocab"), 4)
    assert [part.slices[0].start[0] for part in parts] == [0, 3, 6, 9]
    assert [part.local_shape for part in parts] == [(3, 3), (3, 3), (3, 3), (1, 3)]


def test_key_value_heads_are_held_by_as_many_ranks_as_their_queries() -> None:
    parts = parts_over((5, 32), ShardingRule("x", "column", "kv_groups"), 4)
    assert [part.slices[0].start[1] for part in parts] == [0, 0, 16, 16]
    assert [part.slices[0].stop[1] for part in parts] == [16, 16, 32, 32]
    assert [part.is_owner for part in parts] == [True, False, True, False]


def test_a_fused_gate_and_up_gives_each_rank_some_of_both() -> None:
    whole = np.arange(12)[None]
    parts = parts_over((1, 12), ShardingRule("x", "column", "gate|up"), 3)
    assert [cut(whole, part)[0].tolist() for part in parts] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


def test_a_fused_q_k_v_gives_each_rank_its_heads_of_all_three() -> None:
    head = np.arange(4 + 2 + 2).repeat(16)
    parts = parts_over((128,), ShardingRule("x", "column", "q|k|v"), 2)
    assert [cut(head, part)[::16].tolist() for part in parts] == [[0, 1, 4, 6], [2, 3, 5, 7]]


def test_heads_that_are_fused_one_by_one_stay_together() -> None:
    config = replace(LLAMA, num_kv_heads=4)
    parts = parts_over((7, 192), ShardingRule("x", "column", "per_head"), 2, config)
    assert [(part.slices[0].start[1], part.slices[0].stop[1]) for part in parts] == [(0, 96), (96, 192)]


@pytest.mark.parametrize(
    ("rules", "degree", "text"),
    [
        ((), 2, "the family's sharding map has 0 rules for parameter x, not one."),
        (
            (ShardingRule("x", "row"), ShardingRule("x", "column")),
            2,
            "the family's sharding map has 2 rules for parameter x, not one.",
        ),
        (
            (ShardingRule("x", "column", "kv_groups"),),
            3,
            "2 key/value heads do not split over 3 tensor-parallel ranks.",
        ),
        (
            (ShardingRule("x", "column", "q|k|v"),),
            4,
            "parameter x: its layout q|k|v does not split over 4 tensor-parallel ranks.",
        ),
    ],
)
def test_a_map_that_does_not_fit_is_the_plugins_fault(rules: Rules, degree: int, text: str) -> None:
    with pytest.raises(PluginError) as refusal:
        find_parts({"x": (128, 128)}, LLAMA, rules, degree=degree, index=0)
    assert str(refusal.value) == text
