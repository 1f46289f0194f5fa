"""What two ranks tell each other while they quantize (``quant_program.py``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def said(found: Any) -> list[dict[str, Any]]:
    """What each rank has heard."""
    return [rank["exchanged"] for rank in found.ranks]


def test_notes_come_in_the_order_of_what_was_dealt_out(said: list[dict[str, Any]]) -> None:
    assert all(each["notes"] == [0, 1, 2, 3, 4] for each in said)


def test_arrays_of_unequal_number_and_size_reach_everybody(said: list[dict[str, Any]]) -> None:
    theirs = np.random.default_rng(1).integers(0, 9, [3, 3]).tolist()
    assert all(each["unequal"] == [[], [theirs]] and each["fetched"] == [theirs] for each in said)
    assert all(each["none"] == [0, 0] for each in said)


def test_rows_are_shared_and_joined_also_where_one_rank_has_none(said: list[dict[str, Any]]) -> None:
    for each in said:
        assert each["rows"] == [np.arange(70).tolist(), np.arange(140).reshape(70, 2).tolist()]
        assert each["few rows"] == [0]


def test_a_rank_that_has_seen_nothing_adds_nothing(said: list[dict[str, Any]]) -> None:
    assert all(each["total"] == [1.0, 1.0] for each in said)
