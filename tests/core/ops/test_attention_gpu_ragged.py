from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from llm_run.core.ops import AttentionMask, attention, select
from llm_run.core.ops.ragged import RaggedItem, RaggedMask

flash = import_module("paddle.nn.functional.flash_attention")


def documented_unpadded(
    query: Any, key: Any, value: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int, max_seqlen_k: int,
    scale: float, dropout: float = 0.0, causal: bool = False, training: bool = True,
) -> Any:  # fmt: skip
    """Sequences one after the other, which begin where the cumulated lengths say."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == paddle.int32 and not training
    q_ends, k_ends = cu_seqlens_q.numpy(), cu_seqlens_k.numpy()
    assert (np.diff(q_ends).max(), np.diff(k_ends).max()) == (max_seqlen_q, max_seqlen_k)
    assert (q_ends[-1], k_ends[-1]) == (query.shape[0], key.shape[0])
    outs = []
    for begin, end, first, last in zip(q_ends[:-1], q_ends[1:], k_ends[:-1], k_ends[1:], strict=True):
        assert not causal or end - begin == last - first
        q, k, v = query[begin:end], key[first:last], value[first:last]
        outs.append(F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal, scale=scale)[0])
    return paddle.concat(outs), None


def items(*pairs: tuple[int, int]) -> RaggedMask:
    return RaggedMask(tuple(RaggedItem(queries, keys, AttentionMask()) for queries, keys in pairs))


@pytest.mark.parametrize(
    ("mask", "calls"),
    [
        (items((1, 5), (1, 1), (1, 9)), 1),
        (items((4, 4), (7, 7)), 1),
        (items((1, 5), (6, 6), (1, 3), (2, 2)), 2),
    ],
    ids=["tokens", "prompts", "both"],
)
@pytest.mark.parametrize("scale", [None, 0.5])
def test_a_step_of_the_engine_is_a_call_for_each_kind_of_work(
    on_gpu: None, stand_in: Any, plain_too: Any, random: Any, mask: RaggedMask, calls: int, scale: float | None
) -> None:
    called = stand_in(flash, "flash_attn_unpadded", documented_unpadded)
    queries, keys = (sum(getattr(item, name) for item in mask.items) for name in ("num_queries", "num_keys"))
    q, k, v = (paddle.to_tensor(random(1, length, heads, 8)) for length, heads in ((queries, 4), (keys, 2), (keys, 2)))
    found, expected = plain_too(lambda: attention(q, k, v, mask, scale=scale))
    assert called == ["flash_attn_unpadded"] * calls
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_step_with_a_part_of_a_prompt_goes_sequence_by_sequence(
    on_gpu: None, stand_in: Any, random: Any, caplog: pytest.LogCaptureFixture
) -> None:
    select.decline.cache_clear()
    called = stand_in(flash, "flash_attn_unpadded", documented_unpadded)
    q, k, v = (paddle.to_tensor(random(1, length, 2, 8)) for length in (3, 7, 7))
    with caplog.at_level("INFO", logger="llm_run.ops"):
        attention(q, k, v, items((3, 7)))
    assert called == [] and "a part of a prompt comes behind a cache" in caplog.text
