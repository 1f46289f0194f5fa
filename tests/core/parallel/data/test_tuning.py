"""Two ranks that share the samples of a batch while they tune on pairs, or tune a prefix, against one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.registry.manager import installed

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Found]) -> Found:
    """What each rank found out (``tuning_program.py``)."""
    return ranks(2, Path(__file__).parent / "tuning_program.py", tmp_path_factory.mktemp("tuning"), limit=300)


@pytest.mark.parametrize("layout", ["dp2", "stage3", "tp2", "sep2"])
@pytest.mark.parametrize("kind", ["sigmoid", "kto_pair", "prefix"])
def test_ranks_tune_as_one_process_does(found: Found, kind: str, layout: str) -> None:
    for rank in found:
        alone, here = rank[kind]["alone"], rank[kind][layout]
        assert here["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert here["norms"] == pytest.approx(alone["norms"], rel=1e-4)
        for one, other in zip(here["figures"], alone["figures"], strict=True):
            assert one == {name: pytest.approx(value, abs=1e-5) for name, value in other.items()}
        assert here["evaluation"] == {
            name: pytest.approx(value, rel=1e-5, abs=1e-5) for name, value in alone["evaluation"].items()
        }


@pytest.mark.parametrize("kind", ["sigmoid", "prefix"])
def test_no_rank_of_stage_3_has_a_whole_matrix_between_steps_nor_one_of_the_reference(found: Found, kind: str) -> None:
    for rank in found:
        assert rank[kind]["stage3"]["whole"] == []
        assert len(rank[kind]["dp2"]["whole"]) > 0


@pytest.mark.parametrize("name", installed().families)
def test_ranks_that_share_heads_see_their_heads_of_a_prefix(found: Found, name: str) -> None:
    for rank in found:
        alone, *split = rank["families"][name]
        for figures in split:  # of tensor parallel ranks, and of ranks that share rows
            assert figures == {key: pytest.approx(value, rel=1e-5) for key, value in alone.items()}
