from __future__ import annotations

import math

import numpy as np
import paddle
import pytest
import torch

from llm_run.core.ops import AttentionMask, alibi_slopes, attention
from llm_run.core.ops.masked_attention import dense_mask
from llm_run.core.ops.select import decline

SHAPES = {  # batch, queries, keys, query heads, key/value heads, head size
    "one token": (1, 1, 1, 1, 1, 4),
    "square": (2, 33, 33, 4, 4, 16),
    "grouped heads of odd size": (2, 50, 50, 6, 2, 20),
    "longer than a tile": (1, 203, 203, 2, 1, 64),
    "behind a cache": (2, 7, 131, 4, 2, 8),
    "decoding": (3, 1, 100, 4, 1, 32),
    "decoding a few": (2, 5, 70, 6, 2, 20),
}
MASKS = ["causal", "left padding", "right padding", "packed", "prefix", "packed with prefixes"]


def build_mask(kind: str, batch: int, keys: int) -> AttentionMask:
    if kind == "causal":
        return AttentionMask()
    segments = np.ones((batch, keys), np.int32)
    prefix = np.zeros((batch, keys), bool)
    cuts = [keys // 3, keys - keys // 4]
    if kind == "left padding":
        segments[-1, : cuts[0]] = 0
    if kind == "right padding":
        segments[-1, cuts[1] :] = 0
    if kind.startswith("packed"):
        segments[:, cuts[0] :] = 2
        segments[:, cuts[1] :] = 3
        segments[0, keys - 1 :] = 0
    if "prefix" in kind:
        starts = np.flatnonzero(np.diff(segments[-1], prepend=-1))
        for start in starts:
            prefix[:, start : start + 1 + keys // 8] = True
        prefix[:, : cuts[0] // 2] = True
    has_prefix = "prefix" in kind
    return AttentionMask(
        None if kind == "prefix" else paddle.to_tensor(segments), paddle.to_tensor(prefix) if has_prefix else None
    )


def reference(q, k, v, seen, *, scale, slopes):
    """Softmax over what is seen, in float64 by torch, from the definition."""
    group = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    scores = torch.einsum("bsnd,btnd->bnst", q, k) * scale
    if slopes is not None:
        distance = torch.arange(k.shape[1])[None] - torch.arange(k.shape[1] - q.shape[1], k.shape[1])[:, None]
        scores = scores + torch.tensor(slopes, dtype=torch.float64)[:, None, None] * distance
    scores = scores.masked_fill(~torch.tensor(seen)[:, None], -math.inf)
    return torch.einsum("bnst,btnd->bsnd", scores.softmax(-1), v)


@pytest.mark.parametrize("alibi", [False, True], ids=["", "alibi"])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_attention_and_its_gradients_equal_the_definition(variant, random, learnt, shape, kind, alibi):
    batch, queries, keys, heads, kv_heads, size = shape
    mask = build_mask(kind, batch, keys)
    slopes = alibi_slopes(heads) if alibi else None
    arrays = [random(batch, queries, heads, size), *(random(batch, keys, kv_heads, size) for _ in range(2))]
    d_out = random(batch, queries, heads, size)
    ours = [learnt(array) for array in arrays]
    out = attention(*ours, mask, scale=0.3, slopes_N=slopes)
    out.backward(paddle.to_tensor(d_out))
    theirs = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    expected = reference(*theirs, dense_mask(mask, queries, keys).numpy(), scale=0.3, slopes=slopes)
    expected.backward(torch.tensor(d_out, dtype=torch.float64))
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), atol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-5, rtol=1e-5)


def test_causal_attention_equals_that_of_torch(variant, random):
    q, k, v = (random(2, 65, 4, 32) for _ in range(3))
    ours = attention(*(paddle.to_tensor(x) for x in (q, k, v)), AttentionMask())
    heads_first = [torch.tensor(x).transpose(1, 2) for x in (q, k, v)]
    theirs = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)


def test_packed_samples_equal_the_samples_alone(variant, random):
    q, k, v = (random(1, 90, 2, 16) for _ in range(3))
    segments = np.repeat(np.array([1, 2, 3], np.int32), [40, 15, 35])[None]
    packed = attention(*(paddle.to_tensor(x) for x in (q, k, v)), AttentionMask(paddle.to_tensor(segments)))
    for start, end in ((0, 40), (40, 55), (55, 90)):
        alone = attention(*(paddle.to_tensor(x[:, start:end]) for x in (q, k, v)), AttentionMask())
        np.testing.assert_allclose(packed.numpy()[:, start:end], alone.numpy(), atol=1e-6)


def test_tokens_one_by_one_over_a_cache_equal_all_at_once(variant, random):
    q, k, v = (paddle.to_tensor(random(2, 60, 4, 16)) for _ in range(3))
    at_once = attention(q, k, v, AttentionMask()).numpy()
    for end in (1, 2, 31, 60):
        step = attention(q[:, end - 1 : end], k[:, :end], v[:, :end], AttentionMask())
        np.testing.assert_allclose(step.numpy()[:, 0], at_once[:, end - 1], atol=1e-6)


def test_padding_neither_changes_the_other_rows_nor_makes_nan(variant, random):
    q, k, v = (random(1, 20, 2, 8) for _ in range(3))
    alone = attention(*(paddle.to_tensor(x) for x in (q, k, v)), AttentionMask())
    padded = [np.concatenate([np.full((1, 13, 2, 8), 1e4, np.float32), x], axis=1) for x in (q, k, v)]
    segments = np.repeat(np.array([0, 1], np.int32), [13, 20])[None]
    out = attention(*(paddle.to_tensor(x) for x in padded), AttentionMask(paddle.to_tensor(segments)))
    assert np.isfinite(out.numpy()).all()
    np.testing.assert_allclose(out.numpy()[:, 13:], alone.numpy(), atol=1e-6)


def test_nan_in_a_query_stays_nan_and_reaches_no_other_token(variant, random):
    q, k, v = (random(1, 30, 1, 8) for _ in range(3))
    q[0, 11] = np.nan
    out = attention(*(paddle.to_tensor(x) for x in (q, k, v)), AttentionMask()).numpy()
    assert np.isnan(out[0, 11]).all()
    assert np.isfinite(np.delete(out, 11, axis=1)).all()


def test_a_segment_in_two_pieces_is_one_segment(variant, random, learnt, caplog):
    decline.cache_clear()
    q, k, v = (paddle.to_tensor(random(1, 6, 1, 8)) for _ in range(3))
    mask = AttentionMask(paddle.to_tensor(np.array([[1, 1, 2, 2, 1, 1]], np.int32)))
    with caplog.at_level("INFO", logger="llm_run.ops"):
        out = attention(q, k, v, mask).numpy()
    joined = [x.numpy()[:, [0, 1, 4, 5]] for x in (q, k, v)]
    expected = attention(*(paddle.to_tensor(x) for x in joined), AttentionMask()).numpy()
    np.testing.assert_allclose(out[:, [0, 1, 4, 5]], expected, atol=1e-6)
    assert ("a segment of the mask is in several pieces" in caplog.text) == (variant == "native")


def test_dropout_leaves_out_weights_in_training_only(variant, random):
    paddle.seed(3)
    q, k, v = (paddle.to_tensor(random(1, 64, 2, 8)) for _ in range(3))
    still = attention(q, k, v, AttentionMask()).numpy()
    np.testing.assert_allclose(attention(q, k, v, AttentionMask(), dropout=0.5).numpy(), still, atol=1e-6)
    runs = [attention(q, k, v, AttentionMask(), dropout=0.5, training=True).numpy() for _ in range(200)]
    assert not np.allclose(runs[0], runs[1])
    np.testing.assert_allclose(np.mean(runs, axis=0)[:, 8:], still[:, 8:], atol=0.3)


def test_keys_of_a_cache_with_room_to_grow_are_read_in_place(variant, random):
    room = [paddle.to_tensor(random(2, 64, 2, 8)) for _ in range(2)]
    q = paddle.to_tensor(random(2, 3, 4, 8))
    out = attention(q, room[0][:, :40], room[1][:, :40], AttentionMask())
    expected = attention(q, *(paddle.to_tensor(x.numpy()[:, :40].copy()) for x in room), AttentionMask())
    np.testing.assert_array_equal(out.numpy(), expected.numpy())
