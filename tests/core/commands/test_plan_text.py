from __future__ import annotations

import pytest

from llm_run.core.commands.plan_text import gigabytes, spans


@pytest.mark.parametrize(
    ("numbers", "said"), [([], ""), ([3], "3"), ([0, 1, 2, 3], "0-3"), ([0, 2, 3, 7], "0, 2-3, 7")]
)
def test_numbers_that_follow_each_other_are_a_span(numbers: list[int], said: str) -> None:
    assert spans(numbers) == said


def test_bytes_stand_under_each_other() -> None:
    assert gigabytes(1_234_000_000) == "    1.23"
    assert gigabytes(1_234_000, 3) == "   0.001"
