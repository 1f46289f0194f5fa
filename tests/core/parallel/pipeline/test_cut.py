from __future__ import annotations

import itertools

import pytest

from llm_run.core.errors import PluginError
from llm_run.core.parallel.pipeline.cut import Cut, cut_model
from llm_run.core.registry.facts import Piece


def model(
    layers: int, *, block: int = 1, head: int = 0, tied: bool = False
) -> tuple[list[Piece], dict[str, list[int]]]:
    """Pieces and shapes of a model whose blocks and head have matrices of so many rows of 10."""
    pieces = [Piece("embed", ("embed_tokens.", "embed_positions."))]
    pieces += [Piece(f"blocks.{index}", (f"blocks.{index}.",)) for index in range(layers)]
    pieces += [Piece("finish", ("norm.",))]
    pieces += [Piece("head", () if tied else ("lm_head.",), shares="embed_tokens." if tied else "")]
    shapes = {"embed_tokens.weight": [head, 10], "embed_positions.weight": [7, 10], "norm.weight": [10]}
    shapes |= {f"blocks.{index}.up.weight": [10, block] for index in range(layers)}
    return pieces, shapes if tied else shapes | {"lm_head.weight": [10, head]}


def layers_of(cut: Cut) -> list[int]:
    return [len(section.blocks) for section in cut.sections]


@pytest.mark.parametrize(
    ("layers", "stages", "virtual", "expected"),
    [(4, 2, 1, [2, 2]), (5, 2, 1, [3, 2]), (7, 3, 1, [3, 2, 2]), (8, 2, 2, [2, 2, 2, 2]), (8, 8, 1, [1] * 8)],
)
def test_layers_are_spread_evenly(layers: int, stages: int, virtual: int, expected: list[int]) -> None:
    cut = cut_model(*model(layers), stages=stages, virtual=virtual)
    assert sorted(layers_of(cut), reverse=True) == expected
    assert [block for section in cut.sections for block in section.blocks] == list(range(layers))


def test_a_costly_head_takes_layers_from_its_section() -> None:
    cut = cut_model(*model(10, block=4, head=8), stages=4)
    assert layers_of(cut) == [3, 3, 3, 1]
    assert [section.cost for section in cut.sections] == [120, 120, 120, 120]


@pytest.mark.parametrize("tied", [False, True])
def test_no_other_cut_has_a_cheaper_costliest_section(tied: bool) -> None:
    for layers, stages, head in itertools.product(range(3, 8), (2, 3), (0, 3, 9, 25)):
        cut = cut_model(*model(layers, block=4, head=head, tied=tied), stages=stages)
        found = max(section.cost for section in cut.sections)
        others = []
        for inner in itertools.combinations(range(1, layers), stages - 1):
            runs = [40 * (high - low) for low, high in itertools.pairwise((0, *inner, layers))]
            others.append(max(*runs[:-1], runs[-1] + 10 * head))
        assert found == min(others)


def test_every_parameter_is_owned_by_one_stage_and_a_tied_embedding_held_by_two() -> None:
    pieces, shapes = model(5, head=9, tied=True)
    cut = cut_model(pieces, shapes, stages=2, virtual=2)
    for name in shapes:
        assert sum(cut.owns(stage, name) for stage in range(2)) == 1
        assert sum(cut.holds(stage, name) for stage in range(2)) == (2 if name == "embed_tokens.weight" else 1)
        assert cut.is_shared(name) == (name == "embed_tokens.weight")
    assert cut.owns(0, "embed_tokens.weight")


def test_an_untied_head_shares_nothing() -> None:
    pieces, shapes = model(4, head=9)
    cut = cut_model(pieces, shapes, stages=2)
    assert not any(cut.is_shared(name) for name in shapes)
    assert not cut.holds(1, "embed_tokens.weight")


def test_one_stage_owns_a_tied_embedding_and_shares_it_with_nobody() -> None:
    pieces, shapes = model(4, head=9, tied=True)
    cut = cut_model(pieces, shapes, stages=1)
    assert all(cut.owns(0, name) and not cut.is_shared(name) for name in shapes)


def test_block_10_is_not_taken_for_block_1() -> None:
    cut = cut_model(*model(12), stages=2)
    assert cut.owns(0, "blocks.1.up.weight") and not cut.owns(1, "blocks.1.up.weight")
    assert cut.owns(1, "blocks.10.up.weight") and not cut.owns(0, "blocks.10.up.weight")


def test_a_cut_is_told_by_its_layers() -> None:
    assert str(cut_model(*model(5), stages=2)) == "0-1 | 2-4"
    assert str(cut_model(*model(4), stages=2, virtual=2)) == "0 | 1 | 2 | 3"


def test_pieces_in_another_order_are_refused() -> None:
    pieces, shapes = model(2)
    with pytest.raises(PluginError) as caught:
        cut_model([pieces[0], pieces[2], pieces[1], *pieces[3:]], shapes, stages=2)
    assert str(caught.value) == (
        "llm_run_pipeline_split: pieces are embed, blocks.1, blocks.0, finish, head; "
        "they must be embed, blocks.0, blocks.1, finish, head."
    )


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (Piece("finish", ()), "parameter norm.weight is in no piece; it must be in one piece."),
        (
            Piece("finish", ("norm.", "lm_head.")),
            "parameter lm_head.weight is in finish and head; it must be in one piece.",
        ),
    ],
)
def test_a_parameter_in_no_piece_or_in_two_is_refused(piece: Piece, said: str) -> None:
    pieces, shapes = model(2)
    with pytest.raises(PluginError) as caught:
        cut_model([*pieces[:3], piece, *pieces[4:]], shapes, stages=2)
    assert str(caught.value) == f"llm_run_pipeline_split: {said}"
