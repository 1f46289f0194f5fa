from __future__ import annotations

import numpy as np
import torch

from llm_run.core.convert.dtypes import cast, to_float32

SPECIAL = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3.4e38, 1e-40, np.inf, -np.inf, np.nan]


def _torch_bits(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(values).to(dtype).view(torch.int16).numpy().view(np.uint16)


def test_float32_rounds_to_bfloat16_as_torch_does() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=10000), SPECIAL]).astype(np.float32)
    ours, theirs = cast(values, "float32", "bfloat16"), _torch_bits(values, torch.bfloat16)
    finite = ~np.isnan(values)
    assert np.array_equal(ours[finite], theirs[finite])
    assert np.isnan(to_float32(ours[~finite], "bfloat16")).all()


def test_a_nan_with_low_bits_only_stays_a_nan_in_bfloat16() -> None:
    nan = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(to_float32(cast(nan, "float32", "bfloat16"), "bfloat16")).all()


def test_every_bfloat16_survives_the_way_through_float32() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    back = cast(to_float32(bits, "bfloat16"), "float32", "bfloat16")
    numbers = ~np.isnan(to_float32(bits, "bfloat16"))
    assert np.array_equal(back[numbers], bits[numbers])


def test_every_float16_survives_the_way_through_float32() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = ~np.isnan(bits.view(np.float16))
    back = cast(to_float32(bits.view(np.float16), "float16"), "float32", "float16")
    assert np.array_equal(back.view(np.uint16)[numbers], bits[numbers])


def test_bfloat16_becomes_float16_by_its_value() -> None:
    values = np.array([1.5, -2.0, 0.1], np.float32)
    through = cast(cast(values, "float32", "bfloat16"), "bfloat16", "float16")
    assert np.array_equal(through, torch.from_numpy(values).bfloat16().half().numpy())
