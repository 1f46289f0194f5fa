from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.engine.cache import ContiguousCache

B, K, D = 3, 2, 4


def new_tokens(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((B, count, K, D)).astype(np.float32)


@pytest.mark.parametrize("chunks", [[5, 1, 1, 1], [1, 1, 70, 1, 200], [64, 64, 64], [63, 1, 1, 1]])
@pytest.mark.parametrize("reserve", [1, 64, 1000])
def test_it_returns_what_concatenating_would(chunks: list[int], reserve: int) -> None:
    cache = ContiguousCache(SimpleNamespace(num_layers=2), reserve=reserve)  # type: ignore[arg-type]
    so_far: list[list[np.ndarray]] = [[], []]
    for step, count in enumerate(chunks):
        assert cache.length == sum(chunks[:step])
        for layer in range(2):
            keys = new_tokens(count, 10 * step + layer)
            so_far[layer].append(keys)
            got_k, got_v = cache.layer(layer).extend(paddle.to_tensor(keys), paddle.to_tensor(-keys))
            expected = np.concatenate(so_far[layer], axis=1)
            np.testing.assert_array_equal(got_k.numpy(), expected)
            np.testing.assert_array_equal(got_v.numpy(), -expected)
    assert cache.length == sum(chunks)


@pytest.mark.parametrize("rows", [[2], [2, 0], [1, 1, 0, 2], [0, 1, 2]])
def test_rows_are_dropped_repeated_and_put_in_order(rows: list[int]) -> None:
    cache = ContiguousCache(SimpleNamespace(num_layers=1))  # type: ignore[arg-type]
    first, second = new_tokens(6, 1), new_tokens(1, 2)
    cache.layer(0).extend(paddle.to_tensor(first), paddle.to_tensor(first))
    cache.reorder(rows)
    got, _ = cache.layer(0).extend(paddle.to_tensor(second[rows]), paddle.to_tensor(second[rows]))
    np.testing.assert_array_equal(got.numpy(), np.concatenate([first, second], axis=1)[rows])


def test_later_tokens_do_not_change_what_the_first_call_returned() -> None:
    cache = ContiguousCache(SimpleNamespace(num_layers=1))  # type: ignore[arg-type]
    first = paddle.to_tensor(new_tokens(2, 1))
    before = first.numpy().copy()
    cache.layer(0).extend(first, first)
    cache.layer(0).extend(paddle.to_tensor(new_tokens(1, 2)), paddle.to_tensor(new_tokens(1, 3)))
    np.testing.assert_array_equal(first.numpy(), before)
