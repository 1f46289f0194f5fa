"""The baseline that pretraining is measured against must be a real probability distribution."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bigram() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "bigram.py"
    spec = importlib.util.spec_from_file_location("bigram", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_probabilities_after_each_token_sum_to_one(bigram: ModuleType) -> None:
    tokens = np.random.default_rng(0).zipf(1.5, 500) % 20
    model = bigram.BigramModel(tokens, 20)
    for previous in range(20):
        every = np.arange(20)
        total = sum(math.exp(-model.loss(np.array([previous]), every[i : i + 1])) for i in every)
        assert total == pytest.approx(1.0)


def test_a_certain_successor_costs_little_and_a_new_one_much(bigram: ModuleType) -> None:
    model = bigram.BigramModel(np.tile([3, 5], 1000), 10)
    assert model.loss(np.array([3]), np.array([5])) < 0.01
    assert model.loss(np.array([3]), np.array([4])) > 5
