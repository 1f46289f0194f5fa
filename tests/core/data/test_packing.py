"""Rows of several records."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_run.core.data.collate import collate
from llm_run.core.data.encoding import to_sample
from llm_run.core.data.packing import Rows, join, pack_best_fit, pack_in_order
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.registry.facts import ModelConfig


def drawn(size: int, start: int) -> Sample:
    """A record of ``size`` tokens of which the last two are learnt."""
    return to_sample(np.arange(start, start + size), np.arange(size) >= size - 2)


def rows_of(rows: Rows) -> list[list[int]]:
    return [rows[row] for row in range(len(rows))]


@given(lengths=st.lists(st.integers(1, 20), max_size=60))
def test_rows_hold_all_records_in_order_and_are_filled_greedily(lengths: list[int]) -> None:
    rows = rows_of(pack_in_order(lengths, 20))
    assert [record for row in rows for record in row] == list(range(len(lengths)))
    for row in rows:
        assert 0 < sum(lengths[record] for record in row) <= 20
        if row[-1] + 1 < len(lengths):
            assert sum(lengths[record] for record in row) + lengths[row[-1] + 1] > 20


@given(lengths=st.lists(st.integers(1, 20), max_size=60), window=st.integers(1, 30))
def test_best_fit_holds_each_record_once_and_never_mixes_windows(lengths: list[int], window: int) -> None:
    rows = rows_of(pack_best_fit(lengths, 20, window=window))
    assert sorted(record for row in rows for record in row) == list(range(len(lengths)))
    for row in rows:
        assert 0 < sum(lengths[record] for record in row) <= 20
        assert row == sorted(row)
        assert row[0] // window == row[-1] // window


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_best_fit_is_near_the_least_number_of_rows(lengths: list[int]) -> None:
    # Best-fit decreasing needs at most 11/9 of the optimum and 4 more, and the optimum holds all tokens.
    rows = len(pack_best_fit(lengths, 20))
    halves = sum(length > 10 for length in lengths)  # no two of them share a row
    assert rows >= max(-(-sum(lengths) // 20), halves)
    assert rows <= 11 / 9 * len(pack_in_order(lengths, 20)) + 4


def test_best_fit_fills_what_neighbours_leave_empty() -> None:
    lengths = [12, 9, 11, 8, 14, 6] * 20
    assert len(pack_in_order(lengths, 20)) == 80
    assert len(pack_best_fit(lengths, 20)) == 60  # all of them full


def test_rows_without_packing_hold_one_record() -> None:
    assert rows_of(Rows.of_one_each(3)) == [[0], [1], [2]]


def test_a_row_numbers_its_records_and_no_label_crosses_a_border(model_config: ModelConfig) -> None:
    row = join([drawn(4, 10), drawn(5, 20)])
    assert row.ids.tolist() == [10, 11, 12, 20, 21, 22, 23]
    assert row.labels.tolist() == [IGNORED, 12, 13, IGNORED, IGNORED, 23, 24]
    assert row.segments.tolist() == [1, 1, 1, 2, 2, 2, 2]
    assert row.prefix.tolist() == [True, True, False, True, True, True, False]
    batch = collate([row], model_config, 0)
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3]]


def test_padding_stands_on_the_right_with_segment_zero(model_config: ModelConfig) -> None:
    batch = collate([drawn(4, 10), drawn(6, 20)], model_config, pad_id=7, length=8)
    assert batch.ids_BS.tolist() == [[10, 11, 12, 7, 7, 7, 7, 7], [20, 21, 22, 23, 24, 7, 7, 7]]
    assert batch.labels_BS[0].tolist() == [IGNORED, 12, 13] + [IGNORED] * 5
    assert batch.segments_BS.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 0, 0, 0]]
    assert batch.num_supervised == 4
    assert collate([drawn(4, 10), drawn(6, 20)], model_config, 7).ids_BS.shape == (2, 5)
