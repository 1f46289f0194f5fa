from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.ops import AttentionMask, attention
from llm_run.core.ops.alibi import alibi_slopes
from llm_run.core.ops.graph_attention import GraphMask

PADDING = (0, 3, 1)


def both(
    cached: int, new: int, *, heads: int, kv_heads: int, alibi: bool, prompt: int, shared: int
) -> list[np.ndarray]:
    """Return outputs by the description of ``AttentionMask`` and by that of a graph, of the rows' text only."""
    paddle.seed(0)
    total = cached + new
    text_BP = np.stack([np.arange(total) >= count for count in PADDING]).astype(np.int64)
    q = paddle.randn([3, new, heads, 8])
    k, v = (paddle.randn([3, shared + total, kv_heads, 8]) for _ in range(2))
    segments = np.concatenate([np.zeros([3, shared], np.int64), text_BP], axis=1).astype(np.int32)
    prompt_BP = (np.arange(total) < prompt) & (text_BP > 0)
    prefix = np.concatenate([np.zeros([3, shared], bool), prompt_BP], axis=1) if prompt else None
    described = AttentionMask(paddle.to_tensor(segments), None if prefix is None else paddle.to_tensor(prefix), shared)
    drawn = GraphMask(
        paddle.to_tensor(text_BP), paddle.to_tensor(new), paddle.to_tensor(prompt_BP[:, cached:]) if prompt else None,
        shared,
    )  # fmt: skip
    how: dict[str, Any] = {"slopes_N": alibi_slopes(heads) if alibi else None}
    outs = [attention(q, k, v, mask, **how).numpy() for mask in (described, drawn)]
    return [out[text_BP[:, cached:] > 0] for out in outs]


@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("prompt", [0, 6])
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize(("cached", "new"), [(0, 7), (5, 1), (6, 3)])
def test_a_graph_sees_what_the_description_says(cached: int, new: int, alibi: bool, prompt: int, shared: int) -> None:
    prompt = prompt if new > 1 else 0
    described, drawn = both(cached, new, heads=4, kv_heads=2, alibi=alibi, prompt=prompt, shared=shared)
    np.testing.assert_allclose(drawn, described, atol=2e-6)


def test_padding_sees_itself_and_is_finite() -> None:
    mask = GraphMask(paddle.to_tensor(np.array([[0, 0, 1]])), paddle.to_tensor(3), None, 1)
    seen = mask.bias().numpy()[0] == 0
    assert seen.tolist() == [[False, True, False, False], [False, False, True, False], [True, False, False, True]]


def test_a_prompt_may_be_narrowed_and_a_mask_without_one_stays() -> None:
    text, count = paddle.ones([1, 3], dtype="int64"), paddle.to_tensor(3)
    chosen = paddle.to_tensor([[True, True, False]])
    narrowed = GraphMask(text, count, paddle.to_tensor([[True, True, True]])).within(chosen)
    assert narrowed.prompt_BS is not None and narrowed.prompt_BS.numpy().tolist() == [[True, True, False]]
    plain = GraphMask(text, count)
    assert plain.within(chosen) is plain
