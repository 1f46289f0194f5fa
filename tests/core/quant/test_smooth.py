"""What is moved from activations into weights."""

from __future__ import annotations

import numpy as np

from llm_run.core.quant.smooth import PiecewiseSearch, _loss, search_alpha, smooth_scale, split_by_size


def case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sampled inputs with outliers in a few places, weights, and the largest of both by input."""
    random = np.random.default_rng(seed)
    rows_TI = random.normal(size=[64, 48]).astype(np.float32)
    rows_TI[:, ::8] *= 30
    rows_TI[:, 1::8] *= 5
    weight_OI = random.normal(size=[32, 48]).astype(np.float32)
    return rows_TI, weight_OI, np.abs(rows_TI).max(axis=0), np.abs(weight_OI).max(axis=0)


def error(scale_I: np.ndarray, seed: int = 0) -> float:
    rows_TI, weight_OI, input_max_I, _ = case(seed)
    return _loss(scale_I, rows_TI, weight_OI, rows_TI @ weight_OI.T, input_max_I)


def test_the_scale_is_that_of_the_paper() -> None:
    """SmoothQuant, figure 5: the maxima 16 and 2 with weights of 2 and 1 at alpha 0.5."""
    scale_I = smooth_scale(np.array([16.0, 4.0, 0.0]), np.array([4.0, 1.0, 1.0]), 0.5)
    assert np.allclose(scale_I, [2.0, 2.0, 1.0])
    assert np.allclose(smooth_scale(np.array([16.0]), np.array([4.0]), 1.0), 16.0)
    assert np.allclose(smooth_scale(np.array([16.0]), np.array([4.0]), 0.0), 0.25)


def test_an_input_that_no_weight_reads_keeps_a_finite_scale() -> None:
    assert np.isfinite(smooth_scale(np.array([3.0]), np.array([0.0]), 0.5)).all()


def test_smoothing_leaves_a_much_smaller_error_and_the_searched_alpha_the_smallest() -> None:
    rows_TI, weight_OI, input_max_I, weight_max_I = case()
    plain = error(np.ones(48, dtype=np.float32))
    half = error(smooth_scale(input_max_I, weight_max_I, 0.5))
    searched = error(search_alpha(rows_TI, weight_OI, input_max_I, weight_max_I))
    assert half < 0.5 * plain
    assert searched <= half


def test_pieces_of_their_own_are_no_worse_than_one_alpha_for_all() -> None:
    rows_TI, weight_OI, input_max_I, weight_max_I = case(1)
    one, best = (
        error(PiecewiseSearch(3, tries_fewer=fewer).run(rows_TI, weight_OI, input_max_I, weight_max_I), 1)
        for fewer in (False, True)
    )
    alpha = error(search_alpha(rows_TI, weight_OI, input_max_I, weight_max_I), 1)
    assert best <= alpha + 1e-9 and best <= one + 1e-9


def test_values_of_like_magnitude_are_a_piece() -> None:
    values = np.array([1.0, 50.0, 1.2, 7.0, 0.9, 8.0, 90.0])
    pieces = split_by_size(values, 3)
    assert [np.flatnonzero(piece).tolist() for piece in pieces] == [[0, 2, 4], [3, 5], [1, 6]]


def test_equal_values_are_one_piece() -> None:
    assert [piece.all() for piece in split_by_size(np.ones(5), 3)] == [True]
