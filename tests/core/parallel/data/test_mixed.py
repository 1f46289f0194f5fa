"""Four ranks under mixed layouts against one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOLERANCE = 1e-5
LIMIT = 600
"""Seconds: far more than it takes, also beside other tests."""
LAYOUTS = (
    "tp2 x pp2", "tp2 x pp2 with sequence parallelism", "pp4 interleaved", "tp2 x sharding2 stage 1",
    "tp2 x sharding2 stage 2", "tp2 x sharding2 stage 3", "pp2 x sharding2 stage 1", "dp2 x pp2", "dp2 x tp2",
    "sep4", "dp2 x sep2", "sep2 x tp2 with sequence parallelism", "pp2 x sep2", "sep2 x sharding2 stage 3",
)  # fmt: skip
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Found]) -> Found:
    """What each rank found out (``mixed_program.py``)."""
    return ranks(4, Path(__file__).parent / "mixed_program.py", tmp_path_factory.mktemp("mixed"), limit=LIMIT)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["llama", "chatglm"])
def test_mixed_layouts_train_as_one_process(found: Found, name: str, layout: str) -> None:
    for rank in found:
        alone, here = rank[name]["alone"], rank[name][layout]
        assert here["losses"] == pytest.approx(alone, rel=TOLERANCE)
        assert here["norms"] == pytest.approx(rank[name]["norms"], rel=TOLERANCE)
        assert here["distance"] < TOLERANCE, here["where"]


def test_every_rank_has_the_same_losses_and_norms_to_the_bit(found: Found) -> None:
    for rank in found:
        for name in ("llama", "chatglm"):
            for layout in LAYOUTS:
                for figure in ("losses", "norms"):
                    assert rank[name][layout][figure] == found[0][name][layout][figure]
