"""Ranks of a pipeline run ``stage_program.py`` and compare their gradients with those of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle
import pytest

from llm_run.core.parallel.pipeline.passes import seed_section
from llm_run.core.registry.manager import installed, load_family

FAMILIES = [load_family(name) for name in installed().families]
VARIANTS = [
    f"{family.card.name} {size}" for family in FAMILIES for size in family.card.sizes if size.startswith("tiny")
]
Found = list[dict[str, Any]]
"""By rank."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Found]) -> Callable[[int, str], Found]:
    def start(size: int, layout: str) -> Found:
        return ranks(size, Path(__file__).parent / "stage_program.py", tmp_path_factory.mktemp(layout), [layout])

    return start


@pytest.fixture(scope="module")
def two_stages(run: Callable[[int, str], Found]) -> Found:
    return run(2, "two")


@pytest.fixture(scope="module")
def four_stages(run: Callable[[int, str], Found]) -> Found:
    return run(4, "four")


@pytest.fixture(scope="module")
def tensor_parallel(run: Callable[[int, str], Found]) -> Found:
    return run(4, "tensor")


def assert_equal(found: Found, *, owners: int = 1) -> None:
    """Loss and gradients of all ranks are those of one process; each parameter has so many owners."""
    for rank in found:
        ours, theirs = rank["loss"]
        assert ours == pytest.approx(theirs, rel=1e-6)
        assert rank["errors"] and max(rank["errors"].values()) < 1e-6
    assert sorted(name for rank in found for name in rank["owned"]) == sorted(found[0]["all"] * owners)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_stages_of_every_family_have_the_gradients_of_one_process(two_stages: Found, variant: str) -> None:
    assert_equal([rank["families"][variant] for rank in two_stages])


def test_untied_models_have_them_to_the_bit(two_stages: Found) -> None:
    for variant in ("llama tiny", "bloom tiny-untied", "chatglm2 tiny"):
        assert all(set(rank["families"][variant]["errors"].values()) == {0.0} for rank in two_stages)


def test_tied_embeddings_are_held_by_first_and_last_stage_and_owned_by_the_first(two_stages: Found) -> None:
    first, last = (rank["families"]["glm tiny"] for rank in two_stages)
    assert "embed_tokens.weight" in first["errors"] and "embed_tokens.weight" in last["errors"]
    assert "embed_tokens.weight" in first["owned"] and "embed_tokens.weight" not in last["owned"]
    assert "embed_positions.weight" not in last["errors"]


def test_layers_need_not_divide(two_stages: Found, four_stages: Found) -> None:
    assert two_stages[0]["five layers"]["cut"] == "0-2 | 3-4"
    assert_equal([rank["five layers"] for rank in two_stages])
    assert_equal([rank["five layers"] for rank in four_stages])


def test_interleaved_sections_have_the_gradients_of_one_process(two_stages: Found, four_stages: Found) -> None:
    assert len(four_stages[0]["interleaved"]["cut"].split(" | ")) == 8
    assert_equal([rank["interleaved"] for rank in two_stages])
    assert_equal([rank["interleaved"] for rank in four_stages])


def test_there_may_be_fewer_micro_batches_than_stages(four_stages: Found) -> None:
    assert_equal([rank["fewer micro-batches"] for rank in four_stages])


@pytest.mark.parametrize("name", ["llama", "chatglm2", "glm"])
def test_stages_of_tensor_and_sequence_parallel_ranks_have_the_gradients_of_one_process(
    tensor_parallel: Found, name: str
) -> None:
    assert_equal([rank[name] for rank in tensor_parallel], owners=2)


def test_evaluation_gives_every_stage_the_scores_of_one_process(
    two_stages: Found, four_stages: Found, tensor_parallel: Found
) -> None:
    for rank in (*two_stages, *four_stages, *tensor_parallel):
        assert rank["evaluation"]["gradients"] == []
        for found, expected in zip(rank["evaluation"]["found"], rank["evaluation"]["expected"], strict=True):
            assert found == pytest.approx(expected, rel=1e-6)


def test_dropout_depends_on_the_position_of_the_samples_alone(two_stages: Found) -> None:
    for rank in two_stages:
        for first, again, elsewhere in (rank["dropout"]["losses"], rank["dropout"]["norms"]):
            assert first == again != elsewhere


def test_blocks_that_are_computed_again_give_the_same_gradients(two_stages: Found) -> None:
    for rank in two_stages:
        loss, norm, loss_again, norm_again = rank["recompute"]
        assert (loss, norm) == (loss_again, norm_again)


def test_the_stage_that_loses_the_numbers_first_names_the_layer(two_stages: Found) -> None:
    first, second = (rank["diagnosis"] for rank in two_stages)
    assert first == ["", "embed_tokens", "blocks.2.attention.o_proj", ""]
    assert second == ["", "", "", "norm"]


def test_the_first_rank_tells_layers_and_bubble_once(two_stages: Found, four_stages: Found) -> None:
    lines = four_stages[0]["log"]
    assert lines[1] == (
        "pipeline: layers 0 | 1 | 2-3 | 4 on 4 stages; with 6 micro-batches a step they wait 45 % of their time"
    )
    assert len(lines) == 3 and four_stages[1]["log"] == []


def test_sections_draw_different_random_numbers() -> None:
    drawn = []
    for position, section in ((0, 0), (0, 1), (1, 0), (0, 0)):
        seed_section(5, position, section)
        drawn.append(paddle.rand([4]).tolist())
    assert drawn[0] == drawn[3]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
