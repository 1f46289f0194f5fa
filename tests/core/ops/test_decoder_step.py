from __future__ import annotations

from dataclasses import replace

import numpy as np
import paddle
import pytest

from llm_run.core.ops import alibi_slopes, attention
from llm_run.core.ops.decoder_step import DecoderPlan, DecoderStep, Layer, Norm, Pages, StepRows
from llm_run.core.ops.mask import AttentionMask
from llm_run.core.ops.matrix import float_matrix

BLOCK_TOKENS = 16


def plan_of(num_heads: int, num_kv_heads: int, head_dim: int, slopes_N: np.ndarray | None = None) -> DecoderPlan:
    """A plan whose matrices are never read: for attention alone."""
    empty = float_matrix(paddle.zeros([8, 8]))
    norm = Norm(paddle.ones([8]), None, 1e-6)
    layer = Layer(
        attention_norm=norm, q=empty, k=empty, v=empty, o=empty, ffn_norm=norm, gate=None, up=empty, down=empty
    )
    return DecoderPlan(
        layers=(layer,), num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, activation="relu",
        slopes_N=slopes_N,
    )  # fmt: skip


def scattered(random, lengths: list[int], *head: int) -> tuple[Pages, list[list[int]], list[np.ndarray]]:
    """Pages whose blocks belong to the sequences in no order, their tables, and the keys and values side by side."""
    counts = [-(-length // BLOCK_TOKENS) for length in lengths]
    order = np.random.default_rng(1).permutation(sum(counts) + 3).astype(np.int32)
    keys, values = (random((sum(counts) + 3) * BLOCK_TOKENS, *head) for _ in range(2))
    tables, together = [], []
    for length, blocks in zip(lengths, np.split(order, np.cumsum(counts)), strict=False):
        tables.append(blocks.tolist())
        slots = (blocks[:, None] * BLOCK_TOKENS + np.arange(BLOCK_TOKENS)).ravel()[:length]
        together.append(np.stack([keys[slots], values[slots]]))
    pages = Pages((paddle.to_tensor(keys),), (paddle.to_tensor(values),), BLOCK_TOKENS)
    return pages, tables, together


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim"),
    [(4, 4, 24), (6, 2, 64), (5, 1, 128), (20, 20, 80), (36, 2, 64), (130, 1, 16)],
)
@pytest.mark.parametrize("has_slopes", [False, True])
def test_attention_over_blocks_is_attention_over_the_sequence(
    instructions, random, num_heads, num_kv_heads, head_dim, has_slopes
):
    lengths, counts = [1, 40, 700, 33], [1, 3, 1, 20]
    slopes_N = alibi_slopes(num_heads) if has_slopes else None
    pages, tables, together = scattered(random, lengths, num_kv_heads, head_dim)
    starts = [0, *np.cumsum(counts).tolist()]
    q_RND = paddle.to_tensor(random(sum(counts), num_heads, head_dim))
    rows = StepRows(starts, lengths, tables, [])
    step = DecoderStep(plan_of(num_heads, num_kv_heads, head_dim, slopes_N), pages)
    found = step.attention(q_RND, rows).numpy()
    for start, end, (k_TKD, v_TKD) in zip(starts[:-1], starts[1:], together, strict=True):
        k_1TKD, v_1TKD = paddle.to_tensor(k_TKD[None]), paddle.to_tensor(v_TKD[None])
        expected = attention(q_RND[start:end].unsqueeze(0), k_1TKD, v_1TKD, AttentionMask(), slopes_N=slopes_N)
        np.testing.assert_allclose(found[start:end], expected[0].numpy(), atol=2e-6)


@pytest.mark.parametrize("head_dim", [20, 64, 128])
def test_keys_in_float16_are_read_as_what_they_are(instructions, random, head_dim):
    pages, tables, _ = scattered(random, [300], 2, head_dim)
    half = Pages(*(tuple(x.astype("float16") for x in side) for side in (pages.keys, pages.values)), BLOCK_TOKENS)
    wide = replace(half, keys=(half.keys[0].astype("float32"),), values=(half.values[0].astype("float32"),))
    q_RND = paddle.to_tensor(random(1, 4, head_dim))
    rows = StepRows([0, 1], [300], tables, [])
    found, expected = (
        DecoderStep(plan_of(4, 2, head_dim), each).attention(q_RND, rows).numpy() for each in (half, wide)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
