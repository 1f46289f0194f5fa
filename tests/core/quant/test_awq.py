"""Scales and clipping by the activations."""

from __future__ import annotations

import numpy as np
import pytest

from llm_run.core.quant.awq import clipped_grid, search_scale
from llm_run.core.quant.gptq import output_error
from llm_run.core.quant.grid import GridSpec, fit_grid

SPEC = GridSpec(4, 32, symmetric=False)


def case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, mean absolute inputs, mean of x x^T; a few inputs are much larger than the rest."""
    random = np.random.default_rng(seed)
    weight_OI = random.normal(size=[48, 96]).astype(np.float32)
    rows_TI = random.normal(size=[500, 96])
    rows_TI[:, ::12] *= 20
    return weight_OI, np.abs(rows_TI).mean(axis=0), (rows_TI.T @ rows_TI / 500).astype(np.float32)


def scaled_error(weight_OI: np.ndarray, scale_I: np.ndarray, hessian_II: np.ndarray) -> float:
    scaled_OI = weight_OI * scale_I
    grid = fit_grid(scaled_OI, SPEC)
    return output_error(weight_OI, grid.decode(grid.encode(scaled_OI)) / scale_I, hessian_II)


def test_a_searched_scale_leaves_a_much_smaller_error() -> None:
    weight_OI, sizes_I, hessian_II = case()
    scale_I = search_scale([weight_OI], sizes_I, hessian_II, SPEC)
    assert scaled_error(weight_OI, scale_I, hessian_II) < 0.7 * scaled_error(weight_OI, np.ones(96), hessian_II)
    assert scale_I[::12].min() > scale_I[1::12].max()


def test_no_other_power_is_better() -> None:
    weight_OI, sizes_I, hessian_II = case(1)
    found = scaled_error(weight_OI, search_scale([weight_OI], sizes_I, hessian_II, SPEC), hessian_II)
    for step in range(20):
        scale_I = sizes_I.astype(np.float32) ** (step / 20)
        scale_I /= np.sqrt(scale_I.max() * scale_I.min())
        assert found <= scaled_error(weight_OI, scale_I, hessian_II) + 1e-6


def test_inputs_of_one_size_are_not_scaled() -> None:
    weight_OI, _, _ = case()
    scale_I = search_scale([weight_OI], np.ones(96), np.eye(96, dtype=np.float32), SPEC)
    assert np.allclose(scale_I, 1.0)


@pytest.mark.parametrize("spec", [SPEC, GridSpec(4), GridSpec(8)], ids=str)
def test_clipping_never_makes_the_part_of_a_group_worse(spec: GridSpec) -> None:
    weight_OI, _, hessian_II = case(2)
    plain, clipped = fit_grid(weight_OI, spec), clipped_grid(weight_OI, hessian_II, spec)
    size = 96 // plain.scales_OG.shape[1]
    for first in range(0, 96, size):
        part = slice(first, first + size)

        def error(grid: object, part: slice = part) -> np.ndarray:
            change_OJ = (grid.decode(grid.encode(weight_OI)) - weight_OI)[:, part]  # type: ignore[attr-defined]
            return np.einsum("oi,ij,oj->o", change_OJ, hessian_II[part, part], change_OJ)

        assert (error(clipped) <= error(plain) * (1 + 1e-5)).all()
    if spec.bits == 4:
        assert (clipped.scales_OG < plain.scales_OG).any()
