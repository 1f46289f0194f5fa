"""Keys that every packed sample sees before its own, against samples that are computed alone."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from llm_run.core.ops import AttentionMask, attention
from llm_run.core.ops.mask import visible_ranges
from llm_run.core.ops.masked_attention import dense_mask

SHARED, HEADS, KV_HEADS, SIZE = 3, 4, 2, 8
SLOPES = np.array([0.5, 0.25, 0.125, 0.0625], np.float32)


def drawn(length: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = ([1, length, HEADS, SIZE], [1, length, KV_HEADS, SIZE], [1, length, KV_HEADS, SIZE])
    return tuple(random.normal(size=shape).astype(np.float32) for shape in shapes)  # type: ignore[return-value]


def seen_by(mask: AttentionMask, slopes: np.ndarray | None, *parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Attention of the parts' queries over shared keys and the parts' keys."""
    _, shared_k, shared_v = drawn(SHARED, 99)
    q = np.concatenate([part[0] for part in parts], axis=1)
    k = np.concatenate([shared_k, *(part[1] for part in parts)], axis=1)
    v = np.concatenate([shared_v, *(part[2] for part in parts)], axis=1)
    return attention(*map(paddle.to_tensor, (q, k, v)), mask, slopes_N=slopes).numpy()


def segments(*lengths: int) -> paddle.Tensor:
    columns = [np.zeros(SHARED, np.int32)]
    columns += [np.full(length, place, np.int32) for place, length in enumerate(lengths, 1)]
    return paddle.to_tensor(np.concatenate(columns)[None])


@pytest.mark.parametrize("slopes", [None, SLOPES], ids=["plain", "alibi"])
def test_packed_samples_see_shared_keys_as_single_ones_do(slopes: np.ndarray | None) -> None:
    first, second = drawn(5, 1), drawn(7, 2)
    packed = seen_by(AttentionMask(segments(5, 7), num_shared=SHARED), slopes, first, second)
    alone = [seen_by(AttentionMask(num_shared=SHARED), slopes, part) for part in (first, second)]
    assert np.abs(packed - np.concatenate(alone, axis=1)).max() < 1e-6


@pytest.mark.parametrize("slopes", [None, SLOPES], ids=["plain", "alibi"])
def test_padding_between_shared_keys_and_a_row_changes_nothing(slopes: np.ndarray | None) -> None:
    padding, row = drawn(4, 3), drawn(6, 4)
    given = np.array([[0] * SHARED + [0] * 4 + [1] * 6], np.int32)
    padded = seen_by(AttentionMask(paddle.to_tensor(given), num_shared=SHARED), slopes, padding, row)
    alone = seen_by(AttentionMask(num_shared=SHARED), slopes, row)
    assert np.abs(padded[:, 4:] - alone).max() < 1e-6


def test_a_prefix_that_sees_itself_both_ways_sees_shared_keys_too() -> None:
    row = drawn(6, 5)
    prefix = np.array([[False] * SHARED + [True] * 4 + [False] * 2])
    given = AttentionMask(segments(6), paddle.to_tensor(prefix), num_shared=SHARED)
    seen_ST = dense_mask(given, 6, SHARED + 6).numpy()[0]
    assert seen_ST[:, :SHARED].all()
    assert seen_ST[0, SHARED:].tolist() == [True] * 4 + [False] * 2
    assert np.isfinite(seen_by(given, None, row)).all()


def test_ranges_say_the_same_as_the_dense_mask_where_they_can() -> None:
    given = np.array([[0] * SHARED + [1] * 4 + [0] * 2], np.int32)
    mask = AttentionMask(paddle.to_tensor(given), num_shared=SHARED)
    found = visible_ranges(mask, 6, SHARED + 6)
    assert found is not None
    low, high = found
    columns = np.arange(SHARED + 6)
    ranged = (columns >= low[0][:, None]) & (columns < high[0][:, None])
    assert np.array_equal(ranged, dense_mask(mask, 6, SHARED + 6).numpy()[0])
    assert visible_ranges(AttentionMask(segments(2, 4), num_shared=SHARED), 6, SHARED + 6) is None
