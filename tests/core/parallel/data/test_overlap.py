from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_gradients_that_travel_beside_the_backward_pass_are_the_same_to_the_bit(
    tmp_path: Path, ranks: Callable[..., list[dict[str, Any]]]
) -> None:
    for found in ranks(2, Path(__file__).parent / "overlap_program.py", tmp_path):
        assert found["names"] and found["any"]
        assert found["as behind"] and found["as before"]
        none, sent = found["sent"]
        assert none == 0 and sent > 2
        assert not found["on gloo"]
