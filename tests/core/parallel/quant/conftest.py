"""What two ranks have quantized together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

LIMIT = 600
"""Seconds: many families may be installed, and other tests may run beside this one."""


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Any]) -> Any:
    """What each rank found out (``quant_program.py``), and the folder of what was written."""
    folder = tmp_path_factory.mktemp("quantized")
    said = ranks(2, Path(__file__).parent / "quant_program.py", folder, limit=LIMIT)
    return SimpleNamespace(ranks=said, folder=folder)
