"""A step as one row of numbers."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llm_run.core.engine.pieces import Piece, make_piece, pack, unpack
from llm_run.core.engine.request import Request
from llm_run.core.engine.scheduler import Work
from llm_run.core.engine.sequence import Sequence
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.registry.manager import load_family


def work(family: str, prompt: list[int], computed: int, count: int, **how: Any) -> tuple[Any, Work]:
    """Return a configuration, and work on a sequence that owns three blocks."""
    config = load_family(family).card.sizes["tiny"]
    request = Request(prompt=prompt, settings=SamplingSettings(), adapter=how.pop("adapter", None))
    sequence = Sequence(request, SimpleNamespace(), config, None)
    sequence.num_computed, sequence.blocks = computed, [7, 2, 9]
    return config, Work(sequence, count, **how)


@pytest.mark.parametrize("family", ["llama", "chatglm"])  # chatglm has two positions for each token
def test_what_is_unpacked_is_what_was_packed(family: str) -> None:
    pieces = [
        make_piece(made, config)
        for config, made in (
            work(family, [5, 6, 7, 8], 1, 2),
            work(family, [9, 10], 0, 2, draft=(3, 4), adapter="b"),
            work(family, [11], 0, 1, adapter="a"),
        )
    ]
    found = unpack(pack(pieces, ["a", "b"]), ["a", "b"])
    assert len(found) == 3
    for one, other in zip(pieces, found, strict=True):
        for field in fields(Piece):
            here, there = getattr(one, field.name), getattr(other, field.name)
            assert type(here) is type(there)
            assert np.array_equal(here, there) and getattr(here, "shape", ()) == getattr(there, "shape", ())


def test_a_piece_has_the_tokens_positions_and_results_of_the_work() -> None:
    config, made = work("llama", [5, 6, 7, 8], 1, 3, draft=(20, 21))
    piece = make_piece(made, config)
    assert piece.ids_S.tolist() == [6, 7, 8, 20, 21]
    assert piece.positions.tolist() == [[1, 2, 3, 4, 5]]
    assert (piece.start, piece.stop, piece.num_prompt, piece.num_results) == (1, 6, 4, 3)
    assert piece.blocks.tolist() == [7, 2, 9] and piece.adapter is None


def test_numbers_are_64_bit_integers_and_nothing_else() -> None:
    config, made = work("bloom", [5, 6], 0, 2)
    row = pack([make_piece(made, config)], [])
    assert row.dtype == np.int64 and row.ndim == 1
