from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle

from llm_run.core.engine.paged_cache import PagedStore


def test_buffers_of_float16_take_and_give_what_the_model_computes_in() -> None:
    """As the plain runner meets them, where the C++ step has made them for a model of integers."""
    store = PagedStore(SimpleNamespace(num_layers=1), 8)
    k_SKD, v_SKD = (paddle.to_tensor(np.random.default_rng(i).standard_normal([3, 2, 4], np.float32)) for i in range(2))
    half = paddle.zeros([1, 2, 4], dtype="float16")
    assert {buffer.dtype for buffer in store.buffers(0, half, half)} == {paddle.float16}
    slots = paddle.to_tensor(np.array([5, 0, 7]))
    found = store.extend(0, slots, slots, k_SKD, v_SKD)
    for new, read in zip((k_SKD, v_SKD), found, strict=True):
        assert read.dtype == paddle.float32
        np.testing.assert_array_equal(read.numpy(), new.astype("float16").astype("float32").numpy())
