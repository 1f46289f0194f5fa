"""Each processor against transformers' class of the same purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_run.core.engine import processors

SIZES = (7, 96, 2000)


@pytest.fixture(scope="module")
def theirs() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("transformers").generation.logits_process


def logits(size: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def apply(processor: Any, seen: list[int], values: np.ndarray) -> np.ndarray:
    import torch

    result: np.ndarray = processor(torch.tensor([seen]), torch.tensor(values[None].copy()))[0].numpy()
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("penalty", [1.3, 0.7, 3.0])
def test_repetition_penalty_equals_transformers(theirs: Any, size: int, penalty: float) -> None:
    values, seen = logits(size, 1), [1, 3, 3, 6]
    expected = apply(theirs.RepetitionPenaltyLogitsProcessor(penalty), seen, values)
    ours = processors.penalize_repetition(values, np.array(sorted(set(seen))), penalty)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [1, 3, 50, 10_000])
def test_top_k_equals_transformers(theirs: Any, size: int, k: int) -> None:
    values = logits(size, k)
    np.testing.assert_array_equal(
        processors.keep_top_k(values.copy(), k), apply(theirs.TopKLogitsWarper(k), [0], values)
    )


def test_top_k_keeps_tokens_as_likely_as_the_last_one() -> None:
    kept = processors.keep_top_k(np.array([1, 5, 3, 3, 0], np.float32), 2)
    assert np.isfinite(kept).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", [0.01, 0.3, 0.7, 0.95, 0.9999, 1.0])
@pytest.mark.parametrize("flatness", [1.0, 0.05])
def test_top_p_equals_transformers(theirs: Any, size: int, p: float, flatness: float) -> None:
    # Flat logits spread the probability over more tokens than are looked at first.
    values = logits(size, 5) * np.float32(flatness)
    np.testing.assert_array_equal(
        processors.keep_top_p(values.copy(), p), apply(theirs.TopPLogitsWarper(p), [0], values)
    )


def test_top_p_0_keeps_the_likeliest_token() -> None:
    values = logits(96, 2)
    kept = processors.keep_top_p(values.copy(), 0.0)
    assert np.flatnonzero(np.isfinite(kept)).tolist() == [values.argmax()]


def test_top_p_after_top_k_counts_only_what_top_k_left(theirs: Any) -> None:
    values = logits(2000, 8)
    expected = apply(theirs.TopPLogitsWarper(0.6), [0], apply(theirs.TopKLogitsWarper(20), [0], values))
    np.testing.assert_array_equal(processors.keep_top_p(processors.keep_top_k(values.copy(), 20), 0.6), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("min_p", [0.01, 0.3, 0.99, 1.0])
def test_min_p_equals_transformers(theirs: Any, size: int, min_p: float) -> None:
    values = logits(size, 6)
    np.testing.assert_array_equal(
        processors.keep_min_p(values.copy(), min_p), apply(theirs.MinPLogitsWarper(min_p), [0], values)
    )


def test_forbidden_tokens_cannot_be_drawn(theirs: Any) -> None:
    values = logits(96, 7)
    import torch

    processor = theirs.MinNewTokensLengthLogitsProcessor(1, 3, torch.tensor([2, 5]))
    np.testing.assert_array_equal(processors.forbid(values.copy(), [2, 5]), apply(processor, [0], values))


def test_forbidding_a_token_beyond_the_vocabulary_does_nothing() -> None:
    np.testing.assert_array_equal(processors.forbid(logits(7, 1), [7, 900]), logits(7, 1))
