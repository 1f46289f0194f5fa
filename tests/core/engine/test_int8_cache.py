"""Keys and values in 8 bits."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.engine.fused_runner import choose_runner
from llm_run.core.engine.int8_cache import Int8Store, round_heads
from llm_run.core.engine.paged_cache import PagedStore
from llm_run.core.engine.paged_runner import PagedRunner
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import load_family


def drawn(*shape: int, seed: int = 0) -> paddle.Tensor:
    """Heads of very unequal size, as keys have them."""
    random = np.random.default_rng(seed)
    heads = np.exp(random.normal(0, 2, shape[:-1]))[..., None]
    return paddle.to_tensor((random.normal(size=shape) * heads).astype(np.float32))


def test_a_number_moves_by_no_more_than_half_a_step_of_its_own_head() -> None:
    x_SKD = drawn(7, 3, 16)
    codes, scales = round_heads(x_SKD)
    moved = np.abs(codes.numpy() * scales.numpy()[..., None] - x_SKD.numpy())
    largest = np.abs(x_SKD.numpy()).max(axis=-1, keepdims=True)
    assert (moved <= largest / 127 * 0.5001).all()
    assert np.abs(codes.numpy()).max(axis=-1).min() == 127


def test_a_head_of_zeros_stays_zeros() -> None:
    codes, scales = round_heads(paddle.zeros([2, 3, 8]))
    assert not codes.numpy().any() and np.isfinite(scales.numpy()).all()


def test_slots_are_written_and_read_in_any_order_and_values_may_have_other_heads(llama: Any) -> None:
    store = Int8Store(llama.config, 12)
    k, v = drawn(4, 2, 8), drawn(4, 2, 6, seed=1)
    written, read = paddle.to_tensor([9, 2, 3, 0]), paddle.to_tensor([0, 3, 9])
    found = store.extend(1, written, read, k, v)
    for new, got in zip((k, v), found, strict=True):
        codes, scales = round_heads(new)
        expected = codes.numpy() * scales.numpy()[..., None]
        assert np.array_equal(got.numpy(), expected[[3, 2, 0]])
    again = store.extend(1, paddle.to_tensor([5]), paddle.to_tensor([9, 5]), k[:1] * 2, v[:1])
    assert np.allclose(again[0].numpy()[1], 2 * again[0].numpy()[0])


def test_a_token_takes_little_more_than_a_quarter_of_the_memory_of_floats() -> None:
    config = load_family("llama").card.sizes["smollm2-135m"]
    store = Int8Store(config, 8)
    at = paddle.to_tensor([0])
    for layer in range(config.num_layers):
        store.extend(layer, at, at, drawn(1, 3, 64), drawn(1, 3, 64))
    in_floats = config.num_layers * 2 * 3 * 64 * 4
    assert store.bytes_per_token() == config.num_layers * 2 * 3 * (64 + 4)
    assert store.bytes_per_token() < 0.27 * in_floats


def test_the_c_step_leaves_an_8_bit_cache_to_the_plain_one_and_says_so(
    llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm_run.engine")
    runner = choose_runner(llama, 4, 4, int8_cache=True)
    assert isinstance(runner, PagedRunner) and isinstance(runner.store, Int8Store)
    assert "--cachekv_int8" in caplog.text
    assert isinstance(PagedRunner(llama, 4, 4).store, PagedStore)


def test_beam_search_is_refused(prepared: Any, tmp_path: Any) -> None:
    (tmp_path / "q.jsonl").write_text('{"src": "1", "tgt": "2"}\n')
    how = {"data_file": tmp_path / "q.jsonl", "decode_strategy": "beam_search", "cachekv_int8": "true"}
    with pytest.raises(RefusedError, match="--cachekv_int8: true is not done in beam_search"):
        prepared("generate", **how)
