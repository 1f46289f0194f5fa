"""What ``llm-run plan`` says that ranks send (``core/estimate/communication.py``), against the calls of real steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Found = list[dict[str, Any]]
CASES = (
    "dp4", "stage 1 x 4", "dp2 x stage 2 x 2", "stage 3 x 4", "stage 3 x 4, an adapter", "tp2 x stage 3 x 2", "tp4",
    "dp2 x tp2, sequence parallel", "tp2 x pp2", "tp2 x pp2, sequence parallel", "dp2 x pp2 of two pieces", "sep4",
    "sep2 x tp2, sequence parallel", "sep2 x stage 2 x 2",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Found]) -> Found:
    """What each of four ranks counted and foresaw (``traffic_program.py``)."""
    return ranks(4, Path(__file__).parent / "traffic_program.py", tmp_path_factory.mktemp("traffic"), limit=600)


@pytest.mark.parametrize("case", CASES)
def test_a_step_calls_what_the_plan_says_and_sends_as_many_bytes(found: Found, case: str) -> None:
    for rank, all_cases in enumerate(found):
        assert all_cases[case]["foreseen"] == all_cases[case]["counted"], f"rank {rank}"
        assert all_cases[case]["counted"]


def test_every_case_is_looked_at(found: Found) -> None:
    assert set(found[0]) == set(CASES)
