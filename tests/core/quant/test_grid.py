"""Integers that matrices are rounded to."""

from __future__ import annotations

import numpy as np
import pytest

from llm_run.core.quant.grid import GridSpec, fit_grid, round_to_nearest, search_grid


def matrix(seed: int = 0, shape: tuple[int, int] = (6, 64)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [-1, 32])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_weight_moves_by_no_more_than_half_a_step(bits: int, group: int, symmetric: bool) -> None:
    weight_OI = matrix()
    codes_OI, grid = round_to_nearest(weight_OI, GridSpec(bits, group, symmetric))
    steps_OI = grid.columns(64)[0]
    # The ends of the range may be rounded by a scale that float16 cut short.
    assert (np.abs(grid.decode(codes_OI) - weight_OI) <= 0.505 * steps_OI + 1e-7).all()
    assert codes_OI.min() >= -(1 << (bits - 1)) and codes_OI.max() < 1 << (bits - 1)


def test_symmetric_codes_reach_as_far_to_either_side() -> None:
    codes_OI, grid = round_to_nearest(matrix(), GridSpec(4))
    assert codes_OI.min() == -7 and codes_OI.max() == 7
    assert np.allclose(grid.scales_OG[:, 0] * 7, np.abs(matrix()).max(axis=1), rtol=1e-3)


def test_scales_are_numbers_that_float16_holds() -> None:
    grid = fit_grid(matrix(3) * 1e-3, GridSpec(8, 32))
    assert np.array_equal(grid.scales_OG, grid.scales_OG.astype(np.float16).astype(np.float32))


def test_a_row_of_zeros_stays_zeros() -> None:
    weight_OI = matrix()
    weight_OI[2] = 0.0
    for symmetric in (True, False):
        codes_OI, grid = round_to_nearest(weight_OI, GridSpec(4, 32, symmetric))
        assert not grid.decode(codes_OI)[2].any()


def test_weights_on_one_side_use_all_codes_of_an_asymmetric_grid() -> None:
    weight_OI = np.abs(matrix()) + 0.5
    codes_OI, _ = round_to_nearest(weight_OI, GridSpec(4, symmetric=False))
    assert codes_OI.max() == 7 and codes_OI.min() > -8  # the range begins at 0
    codes_OI, _ = round_to_nearest(-weight_OI, GridSpec(4, symmetric=False))
    assert codes_OI.min() == -8


def test_a_searched_range_is_never_worse_and_clips_an_outlier() -> None:
    weight_OI = matrix(1)
    weight_OI[:, 5] *= 8
    importance_I = np.ones(64, dtype=np.float32)
    importance_I[5] = 1e-3
    plain, searched = fit_grid(weight_OI, GridSpec(4)), search_grid(weight_OI, GridSpec(4), importance_I)

    def errors(grid: object) -> np.ndarray:
        rounded_OI = grid.decode(grid.encode(weight_OI))  # type: ignore[attr-defined]
        return ((rounded_OI - weight_OI) ** 2 * importance_I).sum(axis=1)

    assert (errors(searched) <= errors(plain) + 1e-7).all()
    assert errors(searched).sum() < 0.5 * errors(plain).sum()
