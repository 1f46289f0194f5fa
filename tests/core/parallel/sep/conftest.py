"""Two ranks that share rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LIMIT = 300
"""Seconds: far more than it takes, also beside other tests."""


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What each rank found out (``rank_program.py``)."""
    return ranks(2, Path(__file__).parent / "rank_program.py", tmp_path_factory.mktemp("sep"), limit=LIMIT)
