"""GPTQ on single matrices."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.quant.gptq import GptqSettings, _inverse_factor, gptq, output_error
from llm_run.core.quant.grid import Grid, GridSpec, round_to_nearest, search_grid


def case(seed: int = 0, shape: tuple[int, int] = (24, 96), samples: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the Hessian of inputs that are correlated and of unequal size, as those of language models."""
    random = np.random.default_rng(seed)
    weight_OI = random.normal(size=shape).astype(np.float32)
    rows_TI = random.normal(size=[samples, 16]) @ random.normal(size=[16, shape[1]])
    rows_TI = (rows_TI + 0.3 * random.normal(size=rows_TI.shape)) * np.exp(random.normal(size=shape[1]))
    return weight_OI, (rows_TI.T @ rows_TI / samples).astype(np.float32)


def error(weight_OI: np.ndarray, codes_OI: np.ndarray, grid: Grid, hessian_II: np.ndarray) -> float:
    return output_error(weight_OI, grid.decode(codes_OI), hessian_II)


@pytest.mark.parametrize("spec", [GridSpec(4), GridSpec(4, 32), GridSpec(8), GridSpec(4, 32, symmetric=False)], ids=str)
@pytest.mark.parametrize("act_order", [True, False])
def test_outputs_change_much_less_than_by_rounding_to_the_nearest(spec: GridSpec, act_order: bool) -> None:
    weight_OI, hessian_II = case()
    found = error(weight_OI, *gptq(weight_OI, hessian_II, spec, GptqSettings(act_order=act_order)), hessian_II)
    nearest = error(weight_OI, *round_to_nearest(weight_OI, spec), hessian_II)
    assert found < 0.6 * nearest


def test_one_column_after_the_other_is_what_the_paper_says() -> None:
    """Equation 2 and 3 of the paper, with an inverse that is computed anew for each column."""
    weight_OI, hessian_II = case(1, (5, 20))
    hessian_II = hessian_II.astype(np.float64)
    damped_II = hessian_II + 0.01 * np.mean(np.diag(hessian_II)) * np.eye(20)
    grid = search_grid(weight_OI, GridSpec(4), np.diag(hessian_II))
    left, codes_OI = weight_OI.astype(np.float64).copy(), np.empty([5, 20], np.int8)
    for column in range(20):
        inverse = np.linalg.inv(damped_II[column:, column:])
        code_O = np.clip(np.rint(left[:, column] / grid.scales_OG[:, 0]), -8, 7)
        codes_OI[:, column] = code_O
        change_O = (left[:, column] - code_O * grid.scales_OG[:, 0]) / inverse[0, 0]
        left[:, column:] -= np.outer(change_O, inverse[0])
    found_OI, _ = gptq(weight_OI, hessian_II.astype(np.float32), GridSpec(4), GptqSettings(act_order=False))
    assert (found_OI == codes_OI).mean() > 0.98  # a weight half way between two codes may fall to either side


def test_inputs_that_do_not_depend_on_each_other_are_rounded_to_the_nearest() -> None:
    weight_OI, _ = case(2)
    hessian_II = np.eye(96, dtype=np.float32)
    codes_OI, grid = gptq(weight_OI, hessian_II, GridSpec(4, 32), GptqSettings())
    assert np.array_equal(codes_OI, grid.encode(weight_OI))


@pytest.mark.parametrize("samples", [1, 5, 40])
def test_fewer_samples_than_inputs_are_no_error(samples: int) -> None:
    weight_OI, hessian_II = case(3, samples=samples)
    for damping in (0.01, 0.0):
        codes_OI, grid = gptq(weight_OI, hessian_II, GridSpec(4), GptqSettings(damping=damping))
        assert np.isfinite(grid.decode(codes_OI)).all()
        assert error(weight_OI, codes_OI, grid, hessian_II) < error(
            weight_OI, *round_to_nearest(weight_OI, GridSpec(4)), hessian_II
        )


def test_inputs_that_are_never_seen_do_not_spoil_the_others() -> None:
    weight_OI, hessian_II = case(4)
    weight_OI[:, 7] = 1e6
    hessian_II[7], hessian_II[:, 7] = 0.0, 0.0
    codes_OI, grid = gptq(weight_OI, hessian_II, GridSpec(4), GptqSettings())
    assert not codes_OI[:, 7].any()
    assert grid.scales_OG.max() < 1.0


def test_a_hessian_of_nothing_or_of_nonsense_still_gives_codes() -> None:
    weight_OI, hessian_II = case(5)
    gptq(weight_OI, np.zeros_like(hessian_II), GridSpec(4), GptqSettings())
    broken_II = hessian_II.copy()
    broken_II[3, 3] = np.inf
    codes_OI, grid = gptq(weight_OI, broken_II, GridSpec(4), GptqSettings())
    assert np.isfinite(grid.decode(codes_OI)).all()


def test_the_factor_is_that_of_the_inverse() -> None:
    _, hessian_II = case(6, (2, 150))
    upper_II = _inverse_factor(hessian_II, 0.01).astype(np.float64)
    damped_II = hessian_II + 0.01 * np.mean(np.diag(hessian_II)) * np.eye(150)
    assert not np.tril(upper_II, -1).any()
    assert np.abs(upper_II.T @ upper_II @ damped_II - np.eye(150)).max() < 1e-3


def test_the_best_of_all_roundings_is_nearly_found() -> None:
    """For four weights all neighbours can be tried."""
    weight_OI, hessian_II = case(7, (8, 4), samples=50)
    codes_OI, grid = gptq(weight_OI, hessian_II, GridSpec(4), GptqSettings())
    best = np.zeros(8)
    for row in range(8):
        weight_I, scale = weight_OI[row], grid.scales_OG[row, 0]
        floors = np.floor(weight_I / scale)
        tried = [
            np.clip(floors + ups, -8, 7) * scale - weight_I for ups in itertools.product((0, 1), repeat=4)
        ]  # fmt: skip
        best[row] = min(float(each @ hessian_II @ each) for each in tried)
    found_OI = grid.decode(codes_OI) - weight_OI
    found = np.einsum("oi,ij,oj->o", found_OI, hessian_II, found_OI)
    assert found.sum() < 1.6 * best.sum()


@pytest.mark.parametrize("name", ["rows", "rows_ordered", "groups", "groups_ordered", "wide"])
def test_the_error_is_no_larger_than_that_of_paddleslim(project: Path, name: str) -> None:
    """On the same weights and inputs, with as many codes and the same damping."""
    folder = project / "tests" / "golden"
    recipe = runpy.run_path(str(folder / "gptq_case.py"))
    weight_IO, rows_TI = recipe["drawn"](name)
    _, _, group, ordered = recipe["CASES"][name]
    weight_OI, hessian_II = weight_IO.T, rows_TI.T @ rows_TI / len(rows_TI)
    with np.load(folder / "gptq.npz") as golden:
        theirs = output_error(weight_OI, golden[name].T, hessian_II)
    settings = GptqSettings(act_order=ordered, damping=recipe["DAMPING"])
    ours = error(weight_OI, *gptq(weight_OI, hessian_II, GridSpec(4, group), settings), hessian_II)
    nearest = error(weight_OI, *round_to_nearest(weight_OI, GridSpec(4, group)), hessian_II)
    print(f"nearest {nearest:.4f}, paddleslim {theirs:.4f}, ours {ours:.4f}")
    assert ours <= theirs < nearest
