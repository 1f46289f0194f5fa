"""Two-dimensional positions of blank filling, against a row numbered by hand."""

from __future__ import annotations

import numpy as np
import paddle

from llm_run.core.ops.block_positions import block_positions, without_opening
from llm_run.core.ops.mask import AttentionMask

OPENING, FIRST_KIND, SECOND_KIND = 90, 91, 92


def numbered(ids: list[int], segments: list[int], prompt: list[int], blanks: list[list[int]]) -> list[list[int]]:
    arrays = (np.array([row]) for row in (ids, segments))
    positions = block_positions(*arrays, np.array([prompt], dtype=bool), opening_id=OPENING, blank_ids=blanks)
    rows: list[list[int]] = positions[0].tolist()
    return rows


def test_what_follows_stands_at_the_blank_and_counts_from_one() -> None:
    ids = [1, FIRST_KIND, 2, OPENING, 3, 4]
    rows = numbered(ids, [1] * 6, [1, 1, 1, 1, 0, 0], [[FIRST_KIND]])
    assert rows == [[0, 1, 2, 1, 1, 1], [0, 0, 0, 1, 2, 3]]


def test_packed_samples_are_numbered_apart_and_padding_is_zero() -> None:
    ids = [FIRST_KIND, OPENING, 5, 6, FIRST_KIND, OPENING, 0, 0]
    rows = numbered(ids, [1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 0, 1, 1, 1, 0, 0], [[FIRST_KIND]])
    assert rows == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 1, 2, 0, 0, 1, 0, 0]]


def test_an_earlier_group_of_blanks_wins_and_within_one_the_first_blank() -> None:
    ids, segments, prompt = [SECOND_KIND, 7, FIRST_KIND, OPENING], [1] * 4, [1] * 4
    assert numbered(ids, segments, prompt, [[FIRST_KIND], [SECOND_KIND]])[0] == [0, 1, 2, 2]
    assert numbered(ids, segments, prompt, [[FIRST_KIND, SECOND_KIND]])[0] == [0, 1, 2, 0]


def test_without_a_blank_the_last_token_of_the_context_is_filled() -> None:
    assert numbered([5, 6, OPENING, 8], [1] * 4, [1, 1, 1, 0], [[FIRST_KIND]])[0] == [0, 1, 1, 1]


def test_without_a_prompt_every_token_follows() -> None:
    ids = np.array([[5, 6, 7]])
    positions = block_positions(ids, np.ones_like(ids), None, opening_id=OPENING, blank_ids=[[FIRST_KIND]])
    assert positions.tolist() == [[[0, 0, 0], [1, 2, 3]]]


def test_the_opening_is_taken_out_of_the_prefix_of_new_tokens_only() -> None:
    mask = AttentionMask(prefix_BT=paddle.to_tensor([[True, True, True, True, True]]))
    blocks = paddle.to_tensor([[0, 0, 1]])
    narrowed = without_opening(mask, blocks).prefix_BT
    assert narrowed is not None
    assert narrowed.numpy().tolist() == [[True, True, True, True, False]]
    assert without_opening(AttentionMask(), blocks).prefix_BT is None
