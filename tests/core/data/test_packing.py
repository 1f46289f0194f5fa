"""Rows of several records."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_run.core.data.collate import collate
from llm_run.core.data.encoding import to_sample
from llm_run.core.data.packing import join, pack_in_order
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.registry.facts import ModelConfig


def drawn(size: int, start: int) -> Sample:
    """A record of ``size`` tokens of which the last two are learnt."""
    return to_sample(np.arange(start, start + size), np.arange(size) >= size - 2)


@given(lengths=st.lists(st.integers(1, 20), max_size=60))
def test_rows_hold_all_records_in_order_and_are_filled_greedily(lengths: list[int]) -> None:
    rows = pack_in_order(lengths, 20)
    assert [record for first, last in rows for record in range(first, last)] == list(range(len(lengths)))
    for first, last in rows:
        assert 0 < sum(lengths[first:last]) <= 20
        if last < len(lengths):
            assert sum(lengths[first : last + 1]) > 20


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
