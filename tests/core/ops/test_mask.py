from __future__ import annotations

from itertools import pairwise

import numpy as np
import paddle
import pytest

from llm_run.core.ops import AttentionMask
from llm_run.core.ops.mask import visible_ranges
from llm_run.core.ops.masked_attention import dense_mask


def seen(low: np.ndarray, high: np.ndarray, num_keys: int) -> np.ndarray:
    keys = np.arange(num_keys)
    return (low[..., None] <= keys) & (keys < high[..., None])


def random_mask(source: np.random.Generator) -> AttentionMask:
    """Rows of packed samples between padding, each with a prefix at its start."""
    segments, prefix = np.zeros((3, 24), np.int32), np.zeros((3, 24), bool)
    for row in range(3):
        cuts = np.sort(source.choice(25, size=4, replace=False))
        for number, (start, end) in enumerate(pairwise(cuts), start=1):
            segments[row, start:end] = number
            prefix[row, start : start + source.integers(0, end - start + 1)] = True
    return AttentionMask(paddle.to_tensor(segments), paddle.to_tensor(prefix) if source.random() < 0.7 else None)


@pytest.mark.parametrize("seed", range(20))
def test_ranges_say_what_the_dense_mask_says(seed):
    mask = random_mask(np.random.default_rng(seed))
    for num_queries in (1, 5, 24):
        ranges = visible_ranges(mask, num_queries, 24)
        assert ranges is not None
        np.testing.assert_array_equal(seen(*ranges, 24), dense_mask(mask, num_queries, 24).numpy())


def test_a_token_sees_its_segment_up_to_itself_and_the_prompt_both_ways():
    mask = AttentionMask(
        paddle.to_tensor(np.array([[0, 1, 1, 1, 2, 2]], np.int32)),
        paddle.to_tensor(np.array([[False, True, True, False, False, False]])),
    )
    expected = np.array(
        [
            [1, 0, 0, 0, 0, 0],
            [0, 1, 1, 0, 0, 0],
            [0, 1, 1, 0, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 1, 1],
        ],
        dtype=bool,
    )
    np.testing.assert_array_equal(dense_mask(mask, 6, 6).numpy()[0], expected)


@pytest.mark.parametrize(
    ("segments", "prefix"),
    [([1, 1, 2, 1], None), ([1, 1, 1, 1], [0, 1, 0, 0]), ([1, 1, 2, 2], [1, 0, 0, 1])],
    ids=["a segment in two pieces", "a prefix in the middle", "a prefix at the end"],
)
def test_what_is_not_one_range_a_token_is_none(segments, prefix):
    prefix_BT = None if prefix is None else paddle.to_tensor(np.array([prefix], bool))
    assert visible_ranges(AttentionMask(paddle.to_tensor(np.array([segments], np.int32)), prefix_BT), 4, 4) is None


def test_ranges_are_found_once_for_all_layers():
    mask = AttentionMask(paddle.ones([2, 8], dtype="int32"))
    assert visible_ranges(mask, 8, 8) is visible_ranges(mask, 8, 8)
    assert visible_ranges(mask, 1, 8) is not visible_ranges(mask, 8, 8)
