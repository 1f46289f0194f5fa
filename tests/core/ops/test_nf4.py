"""4-bit NormalFloat against its definition."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from llm_run.core.ops.nf4 import GROUP, VALUES, Nf4Weight, dequantize_nf4, round_to_nf4


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.02, shape).astype(np.float32)


def codes_of(weight: Nf4Weight) -> np.ndarray:
    packed = weight.codes.numpy()
    return np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)


def test_the_values_are_quantiles_of_a_normal_distribution() -> None:
    """bitsandbytes draws them so (``create_normal_map``): nine quantiles above the middle, eight below, 0 for both."""
    tail = 0.9677083
    positive = [NormalDist().inv_cdf(share) for share in np.linspace(tail, 0.5, 9)[:-1]]
    negative = [-NormalDist().inv_cdf(share) for share in np.linspace(tail, 0.5, 8)[:-1]]
    expected = np.sort([*negative, 0.0, *positive]) / max(positive)
    assert np.abs(np.array(VALUES) - expected).max() < 1e-6


@pytest.mark.parametrize("shape", [(6, 64), (5, 100), (3, 7)], ids=["rows of a block", "blocks across rows", "a rest"])
def test_every_weight_becomes_the_nearest_value_of_its_block(shape: tuple[int, int]) -> None:
    weight_OI = drawn(*shape)
    rounded = round_to_nf4(weight_OI, 64)
    flat = weight_OI.reshape(-1)
    expected = []
    for first in range(0, len(flat), 64):  # bitsandbytes goes over the rows one after the other, too
        block = flat[first : first + 64]
        absmax = np.abs(block).max()
        nearest = np.abs(block[:, None] / absmax - np.array(VALUES)).argmin(axis=1)
        expected.append((nearest, np.array(VALUES, dtype=np.float32)[nearest] * absmax))
    assert np.array_equal(codes_of(rounded)[: len(flat)], np.concatenate([codes for codes, _ in expected]))
    found = dequantize_nf4(rounded).numpy()
    assert found.shape == shape
    np.testing.assert_allclose(found.reshape(-1), np.concatenate([values for _, values in expected]), rtol=1e-6)


def test_zeros_stay_zeros() -> None:
    weight_OI = drawn(2, 64)
    weight_OI[1] = 0.0
    for double in (False, True):
        found = dequantize_nf4(round_to_nf4(weight_OI, 64, double=double)).numpy()
        assert np.isfinite(found).all() and not found[1].any()


def test_a_weight_takes_four_and_a_half_bits_or_a_little_more_than_four() -> None:
    weight_OI = drawn(256, 64 * 4)
    plain, double = (round_to_nf4(weight_OI, 64, double=double) for double in (False, True))
    assert plain.num_bytes * 8 / weight_OI.size == 4 + 32 / 64
    assert double.num_bytes * 8 / weight_OI.size == 4 + 8 / 64 + 32 / (64 * GROUP)
    errors = [np.sqrt(np.mean((dequantize_nf4(each).numpy() - weight_OI) ** 2)) for each in (plain, double)]
    assert errors[1] < 1.01 * errors[0] < 0.1 * weight_OI.std()
