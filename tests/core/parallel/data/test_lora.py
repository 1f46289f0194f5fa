"""Two ranks that train an adapter on the samples of a batch, against one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Found]) -> Found:
    """What each rank found out (``lora_program.py``)."""
    return ranks(2, Path(__file__).parent / "lora_program.py", tmp_path_factory.mktemp("lora"), limit=300)


@pytest.mark.parametrize("layout", ["dp2", "stage1", "stage2", "stage3"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_ranks_train_an_adapter_as_one_process_does(found: Found, kind: str, layout: str) -> None:
    for rank in found:
        alone, here = rank[kind]["alone"], rank[kind][layout]
        assert here["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert here["norms"] == pytest.approx(alone["norms"], rel=1e-4)
        assert len(set(alone["losses"])) == 3


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_no_rank_of_stage_3_has_a_whole_matrix_between_steps(found: Found, kind: str) -> None:
    for rank in found:
        assert rank[kind]["stage3"]["whole"] == []
        assert len(rank[kind]["stage2"]["whole"]) == len(rank[kind]["alone"]["whole"]) > 0


@pytest.mark.parametrize("layout", ["stage1", "stage3"])
def test_ranks_share_the_optimizer_state_of_the_adapter_only(found: Found, layout: str) -> None:
    values = [rank["lora"][layout]["values"] for rank in found]
    assert sum(values) == found[0]["lora"]["alone"]["values"]
    assert max(values) < 0.6 * sum(values)
