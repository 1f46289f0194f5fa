"""A rank that dies in the middle of an answer takes the others with it, and nobody waits for what never comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "failing_program.py"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_is_told_to_every_open_request_or_to_who_followed_it(
    rank: int, tmp_path: Path, ranks: Callable[..., list[dict[str, Any]]]
) -> None:
    found = ranks(2, PROGRAM, tmp_path, [str(rank)], limit=120)
    if rank == 0:
        assert found[1]["error"].startswith("rank 0 has ended while rank 1 was at ")
        return
    assert len(found[0]["said"]) == 5
    assert set(found[0]["said"]) == {"the engine has died (DistributedError)"}
    assert found[0]["failure"].startswith("rank 1 has ended while rank 0 was at ")
    assert not found[0]["alive"]
