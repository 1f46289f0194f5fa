"""What is moved from activations into weights."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from llm_run.core.ops import int8_linear
from llm_run.core.quant.grid import GridSpec, round_to_nearest
from llm_run.core.quant.layer import pack_weight
from llm_run.core.quant.smooth import PiecewiseSearch, Trial, search_alpha, smooth_scale, split_by_size


def trial(seed: int = 0, *, per_token: bool = False) -> Trial:
    """Sampled inputs with outliers in a few places, weights, and the largest of both by input."""
    random = np.random.default_rng(seed)
    rows_TI = random.normal(size=[64, 48]).astype(np.float32)
    rows_TI[:, ::8] *= 30
    rows_TI[:, 1::8] *= 5
    weight_OI = random.normal(size=[32, 48]).astype(np.float32)
    return Trial(rows_TI, weight_OI, np.abs(rows_TI).max(axis=0), np.abs(weight_OI).max(axis=0), per_token)


def test_the_scale_is_that_of_the_paper() -> None:
    """SmoothQuant, figure 5: the maxima 16 and 2 with weights of 2 and 1 at alpha 0.5."""
    scale_I = smooth_scale(np.array([16.0, 4.0, 0.0]), np.array([4.0, 1.0, 1.0]), 0.5)
    assert np.allclose(scale_I, [2.0, 2.0, 1.0])
    assert np.allclose(smooth_scale(np.array([16.0]), np.array([4.0]), 1.0), 16.0)
    assert np.allclose(smooth_scale(np.array([16.0]), np.array([4.0]), 0.0), 0.25)


def test_an_input_that_no_weight_reads_keeps_a_finite_scale() -> None:
    assert np.isfinite(smooth_scale(np.array([3.0]), np.array([0.0]), 0.5)).all()


@pytest.mark.parametrize("per_token", [False, True])
def test_smoothing_leaves_a_much_smaller_error_and_the_searched_alpha_the_smallest(per_token: bool) -> None:
    tried = trial(per_token=per_token)
    plain = tried.loss(np.ones(48, dtype=np.float32))
    half, searched = tried.loss(tried.smoothed(0.5)), tried.loss(search_alpha(tried))
    assert half < 0.5 * plain
    assert searched <= half


def test_pieces_of_their_own_are_no_worse_than_one_alpha_for_all() -> None:
    tried = trial(1)
    one, best = (tried.loss(PiecewiseSearch(3, tries_fewer=fewer).run(tried)) for fewer in (False, True))
    alpha = tried.loss(search_alpha(tried))
    assert best <= alpha + 1e-9 and best <= one + 1e-9


@pytest.mark.parametrize("per_token", [False, True])
def test_what_a_search_tries_is_what_the_layer_will_compute(per_token: bool) -> None:
    tried = trial(2, per_token=per_token)
    scale_I = tried.smoothed(0.6)
    packed = pack_weight(*round_to_nearest(tried.weight_OI * scale_I, GridSpec(8)))
    step = None if per_token else float((tried.input_max_I / scale_I).max() / 127)
    found_TO = int8_linear(paddle.to_tensor(tried.rows_TI / scale_I), packed, input_scale=step).numpy()
    error = np.mean((found_TO - tried.rows_TI @ tried.weight_OI.T) ** 2)
    assert np.isclose(tried.loss(scale_I), error, rtol=0.02)


def test_values_of_like_magnitude_are_a_piece() -> None:
    values = np.array([1.0, 50.0, 1.2, 7.0, 0.9, 8.0, 90.0])
    pieces = split_by_size(values, 3)
    assert [np.flatnonzero(piece).tolist() for piece in pieces] == [[0, 2, 4], [3, 5], [1, 6]]


def test_equal_values_are_one_piece() -> None:
    assert [piece.all() for piece in split_by_size(np.ones(5), 3)] == [True]
