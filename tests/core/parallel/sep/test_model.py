"""Models whose rows two ranks share, against one process."""

from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.sep.model import own_tokens, row_share_of, share_rows
from llm_run.core.registry.manager import installed, load_family

TOLERANCE = 1e-5
Found = list[dict[str, Any]]


def check(compared: dict[str, float]) -> None:
    """Compare loss and gradients."""
    assert compared["loss"] < TOLERANCE
    assert compared["gradient"] < TOLERANCE


def check_figures(alone: list[float], shared: list[float]) -> None:
    """Compare the sums of an evaluation: loss, right tokens, supervised tokens, samples."""
    assert shared[1:] == alone[1:]
    assert shared[0] == pytest.approx(alone[0], rel=TOLERANCE)


@pytest.mark.parametrize("name", installed().families)
def test_packed_and_padded_rows_have_the_loss_and_gradients_of_one_process(found: Found, name: str) -> None:
    for rank in found:
        check(rank["families"][name])


def test_each_rank_computes_half_of_the_tokens_of_rows_that_are_filled_up(found: Found) -> None:
    assert [rank["lengths"] for rank in found] == [[21, 11], [21, 11]]


@pytest.mark.parametrize("name", ["llama", "glm"])
def test_noise_on_embeddings_is_that_of_the_whole_row(found: Found, name: str) -> None:
    for rank in found:
        check(rank["noise"][name])


def test_an_adapter_learns_what_it_learns_in_one_process(found: Found) -> None:
    for rank in found:
        check(rank["lora"])


def test_a_rank_whose_tokens_teach_nothing_takes_part(found: Found) -> None:
    for rank in found:
        check(rank["sparse"])


def test_pairs_that_lie_on_both_ranks_or_on_one_are_compared_as_in_one_process(found: Found) -> None:
    for rank in found:
        for pairs in rank["pairs"]:
            check(pairs)


def test_ranks_drop_other_entries_and_the_same_ones_when_they_recompute(found: Found) -> None:
    for rank in found:
        away = rank["dropout"]["away"]
        assert away["again"] == 0.0
        assert away["recomputed"] < TOLERANCE
        assert away["core"] < TOLERANCE
        assert away["none"] > 0.1
        first, second = rank["dropout"]["zeros"]
        assert 0.4 < sum(first) / len(first) < 0.6
        assert 0.4 < sum(one != other for one, other in zip(first, second, strict=True)) / len(first) < 0.6


@pytest.mark.parametrize("name", ["llama", "chatglm"])
def test_an_evaluation_counts_every_token_once_on_every_rank(found: Found, name: str) -> None:
    for rank in found:
        check_figures(*rank["evaluation"][name])


def test_what_depends_on_the_length_of_a_row_depends_on_the_whole_of_it(found: Found) -> None:
    for rank in found:
        check_figures(*rank["stretched"])


def test_one_process_is_left_as_it_is() -> None:
    family = load_family("llama")
    model = family.build_model(family.card.sizes["tiny"])
    kind = type(model)
    assert share_rows(model, Mesh()) is model
    assert type(model) is kind
    assert row_share_of(model) is None
    labels = model.embed_tokens.weight
    assert own_tokens(model, labels, fill=0) is labels
