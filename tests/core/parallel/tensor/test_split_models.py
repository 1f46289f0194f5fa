"""Models of every family on two and four tensor-parallel ranks, against one process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llm_run.core.parallel.tensor.arrays import cut
from llm_run.core.parallel.tensor.parts import even_span, find_parts

from .cases import FOUR, cases, is_computed

Found = dict[str, np.ndarray]
TOLERANCE = 1e-5
SMALLEST = 1e-2
"""Gradients whose largest entry is below this are compared with it: those of key biases are 0 but for rounding."""
SPLITS = [(2, name) for name in cases()] + [(4, name) for name in FOUR]
every_split = pytest.mark.parametrize(("size", "name"), SPLITS, ids=[f"{name} on {size}" for size, name in SPLITS])
COMPUTED = [(*each, kind) for each in SPLITS for kind in ("tensor", "sequence") if is_computed(each[1], kind)]
every_computation = pytest.mark.parametrize(
    ("size", "name", "kind"), COMPUTED, ids=[f"{kind} {name} on {size}" for size, name, kind in COMPUTED]
)
both_kinds = pytest.mark.parametrize("kind", ["tensor", "sequence"])


def part_of(whole: Found, key: str, name: str, size: int, rank: int) -> np.ndarray:
    """Return what one rank should have found, given what one process did."""
    family, config = cases()[name]
    if key == "logits":
        first, last = even_span(config.vocab_size, size, rank)
        return whole[key][:, first:last]
    kind, _, parameter = key.partition(" ")
    if kind not in ("gradient", "drawn"):
        return whole[key]
    rules = family.sharding_map(config)
    assert rules is not None
    shapes = {each.removeprefix("drawn "): values.shape for each, values in whole.items() if each.startswith("drawn ")}
    return cut(whole[key], find_parts(shapes, config, rules, degree=size, index=rank)[parameter])


@every_computation
def test_hidden_states_logits_losses_and_gradients_equal_those_of_one_process(
    split_over: Callable[[int], list[Found]], alone: Callable[[str], Found], size: int, name: str, kind: str
) -> None:
    whole = alone(name)
    keys = [key for key in whole if not key.startswith("drawn ")]
    assert sum(key.startswith("gradient ") for key in keys) == sum(key.startswith("drawn ") for key in whole)
    for rank, found in enumerate(split_over(size)):
        for key in keys:
            expected = part_of(whole, key, name, size, rank).astype("float64")
            difference = np.abs(found[f"{kind}: {name} {key}"].astype("float64") - expected).max()
            assert difference <= TOLERANCE * max(np.abs(expected).max(), SMALLEST), (rank, key, difference)


@every_split
def test_random_weights_are_those_of_one_process_to_the_bit(
    split_over: Callable[[int], list[Found]], alone: Callable[[str], Found], size: int, name: str
) -> None:
    whole = alone(name)
    for rank, found in enumerate(split_over(size)):
        for key in whole:
            if key.startswith("drawn "):
                expected = part_of(whole, key, name, size, rank)
                np.testing.assert_array_equal(found[f"tensor: {name} {key}"], expected, err_msg=key)


def test_weights_that_are_loaded_are_those_of_the_file_to_the_bit(
    split_over: Callable[[int], list[Found]], alone: Callable[[str], Found]
) -> None:
    for found in split_over(2):
        for key, expected in alone("llama-tiny").items():
            if key.startswith("drawn "):
                np.testing.assert_array_equal(found[key.replace("drawn", "loaded")], expected)


def test_a_pipeline_stage_loads_its_own_parameters_only(
    split_over: Callable[[int], list[Found]], alone: Callable[[str], Found]
) -> None:
    expected = {key.removeprefix("drawn ") for key in alone("llama-tiny") if key.startswith("drawn blocks.1.")}
    for found in split_over(2):
        assert {key.removeprefix("stage ") for key in found if key.startswith("stage ")} == expected


@both_kinds
def test_what_ranks_share_drops_the_same_entries_on_each(
    split_over: Callable[[int], list[Found]], alone: Callable[[str], Found], kind: str
) -> None:
    first, second = split_over(2)
    for key in ("hidden", "loss", "next", "gradient norm.weight", "gradient embed_positions.weight"):
        np.testing.assert_array_equal(first[f"{kind}: dropped : {key}"], second[f"{kind}: dropped : {key}"])
    assert np.abs(first[f"{kind}: dropped : hidden"] - alone("gpt3-tiny")["hidden"]).max() > 0.1


@both_kinds
@pytest.mark.parametrize("granularity", ["full", "full_attn"])
def test_recomputation_drops_the_same_entries_again(
    split_over: Callable[[int], list[Found]], kind: str, granularity: str
) -> None:
    for found in split_over(2):
        keys = [key for key in found if key.startswith(f"{kind}: dropped : ")]
        assert len(keys) > 30
        for key in keys:
            again = found[key.replace("dropped ", f"dropped {granularity}")]
            np.testing.assert_allclose(again, found[key], rtol=1e-5, atol=1e-6, err_msg=key)
