from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from llm_run.core.ops import AttentionMask, alibi_slopes, attention, select

flash = import_module("paddle.nn.functional.flash_attention")
on_cpu = flash.flash_attention


def grouped(query: Any, key: Any, value: Any, **named: Any) -> Any:
    """Paddle's own function, which on a CPU wants keys and values for each head."""
    copies = query.shape[2] // key.shape[2]
    return on_cpu(query, *(paddle.repeat_interleave(each, copies, axis=2) for each in (key, value)), **named)


def documented_flashmask(
    query: Any, key: Any, value: Any, startend_row_indices: Any, *, dropout: float, causal: bool, training: bool
) -> Any:
    """The dense mask that the docstring of ``flashmask_attention`` builds, for two numbers a key and no causality."""
    assert not causal and startend_row_indices.shape[1] == 1 and startend_row_indices.dtype == paddle.int32
    rows, _, length, _ = startend_row_indices.shape
    bounds, mask = startend_row_indices.numpy(), np.zeros((rows, 1, length, length), np.float32)
    for row in range(rows):
        for j in range(length):
            mask[row, 0, bounds[row, 0, j, 0] :, j] = -np.inf
            mask[row, 0, : bounds[row, 0, j, 1], j] = -np.inf
    return F.scaled_dot_product_attention(query, key, value, attn_mask=paddle.to_tensor(mask))


SEGMENTS = np.array([[0, 1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 2, 3, 3]], np.int32)
PROMPTS = np.array([[0, 1, 1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 1, 0]], bool)


@pytest.mark.parametrize(
    ("mask", "queries", "name"),
    [
        (AttentionMask(), 8, "flash_attention"),
        (AttentionMask(), 1, "flash_attention"),
        (AttentionMask(paddle.to_tensor(SEGMENTS)), 8, "flashmask_attention"),
        (AttentionMask(paddle.to_tensor(SEGMENTS), paddle.to_tensor(PROMPTS)), 8, "flashmask_attention"),
        (AttentionMask(None, paddle.to_tensor(PROMPTS[1:] & (np.arange(8) < 3))), 8, "flashmask_attention"),
    ],
    ids=["causal", "one token", "packed", "packed prompts", "one prompt"],
)
def test_a_mask_is_told_to_the_flash_kernels_in_their_words(
    on_gpu: None, stand_in: Any, plain_too: Any, random: Any, mask: AttentionMask, queries: int, name: str
) -> None:
    stand_in(flash, "flash_attention", grouped)
    called = stand_in(flash, "flashmask_attention", documented_flashmask)
    q, k, v = (paddle.to_tensor(random(2, length, heads, 8)) for length, heads in ((queries, 4), (8, 2), (8, 2)))
    found, expected = plain_too(lambda: attention(q, k, v, mask))
    assert called == [name]
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("queries", "how", "reason"),
    [
        (3, {}, "they take whole sequences"), (8, {"scale": 1.0}, "they scale by the size of a head"),
        (8, {"slopes_N": alibi_slopes(2)}, "they have no linear biases"),
    ],
)  # fmt: skip
def test_what_the_flash_kernels_cannot_do_is_plain_and_said(
    on_gpu: None, stand_in: Any, random: Any, queries: int, how: dict[str, Any], reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    called = stand_in(flash, "flash_attention", grouped)
    select.decline.cache_clear()
    with caplog.at_level("INFO", logger="llm_run.ops"):
        attention(
            *(paddle.to_tensor(random(1, length, 2, 8)) for length in (queries, 8, 8)), AttentionMask(), **how
        )  # fmt: skip
    assert called == []
    assert f"attention: plain for some calls (gpu cannot do them: {reason}" in caplog.text
