"""Two ranks that share the samples of a batch, in every layout, against one process, for every installed family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.registry.manager import installed

TOLERANCE = 1e-5
LIMIT = 600
"""Seconds: many families may be installed, and other tests may run beside this one."""
Found = list[dict[str, Any]]
every_family = pytest.mark.parametrize("name", installed().families)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Found]) -> Found:
    """What each rank found out (``family_program.py``)."""
    return ranks(2, Path(__file__).parent / "family_program.py", tmp_path_factory.mktemp("families"), limit=LIMIT)


def check(found: Found, name: str, layout: str) -> None:
    """Compare losses and parameters of both ranks with those of one process."""
    for rank in found:
        alone, here = rank[name]["alone"], rank[name][layout]
        assert here["losses"] == pytest.approx(alone, rel=TOLERANCE)
        assert here["distance"] < TOLERANCE, here["where"]


@every_family
def test_data_parallel_ranks_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "data_parallel")


@every_family
def test_ranks_that_share_optimizer_state_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "sharding_stage1")


@every_family
def test_ranks_that_share_gradients_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "sharding_stage2")


@every_family
def test_ranks_that_share_parameters_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "sharding_stage3")


@every_family
def test_ranks_that_share_matrices_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "tensor_parallel")


@every_family
def test_ranks_that_share_matrices_and_rows_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "sequence_parallel")


@every_family
def test_stages_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "pipeline_parallel")


@every_family
def test_ranks_that_share_rows_train_as_one_process(found: Found, name: str) -> None:
    check(found, name, "sep_parallel")
