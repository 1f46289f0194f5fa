"""What observers remember, against numpy over all batches at once."""

from __future__ import annotations

import numpy as np
import paddle

from llm_run.core.quant.observe import AverageMaximum, Both, Extremes, Moments, SampledRows

BATCHES = [np.random.default_rng(seed).normal(seed, 1, [5 + seed, 6]).astype(np.float32) for seed in range(4)]
ALL = np.concatenate(BATCHES)


def show(observer: object) -> None:
    for batch in BATCHES:
        rows = np.arange(len(batch)) // 3
        observer.add(paddle.to_tensor(batch), rows)  # type: ignore[attr-defined]


def test_moments_are_those_of_all_tokens() -> None:
    seen = Moments()
    show(seen)
    assert np.allclose(seen.hessian_II, ALL.T @ ALL / len(ALL), rtol=1e-5)
    assert np.allclose(seen.mean_abs_I, np.abs(ALL).mean(axis=0), rtol=1e-5)


def test_extremes_and_their_middle() -> None:
    seen = Extremes()
    show(seen)
    assert np.allclose(seen.absolute_I, np.abs(ALL).max(axis=0))
    assert np.allclose(seen.middle_I, (ALL.min(axis=0) + ALL.max(axis=0)) / 2)


def test_the_moving_average_of_equal_batches_is_their_mean() -> None:
    seen = Extremes()
    for _ in range(3):
        seen.add(paddle.to_tensor(BATCHES[2]), np.zeros(len(BATCHES[2])))
    assert np.allclose(seen.average_I, BATCHES[2].mean(axis=0), rtol=1e-5)


def test_the_maximum_is_averaged_over_rows_then_over_batches() -> None:
    seen = AverageMaximum()
    show(seen)
    expected = np.mean(
        [np.mean([np.abs(batch[at : at + 3]).max() for at in range(0, len(batch), 3)]) for batch in BATCHES]
    )
    assert np.isclose(seen.value, expected)


def test_two_observers_see_what_each_would_see_alone() -> None:
    both, alone = Both(Extremes(), SampledRows(per_batch=3)), SampledRows(per_batch=3)
    show(both)
    show(alone)
    assert np.allclose(both.first.absolute_I, np.abs(ALL).max(axis=0))
    assert all(np.array_equal(one, other) for one, other in zip(both.second.rows, alone.rows, strict=True))


def test_sampled_rows_are_inputs_from_begin_to_end() -> None:
    seen = SampledRows(per_batch=3)
    show(seen)
    assert [rows.shape for rows in seen.rows] == [(3, 6)] * 4
    assert np.array_equal(seen.rows[1][[0, -1]], BATCHES[1][[0, -1]])
