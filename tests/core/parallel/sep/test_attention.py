"""Attention of two ranks that share rows, against attention over whole rows."""

from __future__ import annotations

from typing import Any

import pytest

from .cases import ATTENTION

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", ATTENTION)
def test_outputs_and_gradients_are_those_of_whole_rows(found: list[dict[str, Any]], name: str) -> None:
    for rank in found:
        for what, away in rank["attention"][name].items():
            assert away < TOLERANCE, what
