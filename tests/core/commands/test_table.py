"""Tables line up on screen, whatever their signs are."""

from __future__ import annotations

import pytest

from llm_run.core.commands.configuration import shown
from llm_run.core.commands.plan_text import spell
from llm_run.core.commands.table import aligned, markdown, width, wrapped


def test_signs_and_chinese_take_two_columns() -> None:
    assert (width("ab"), width("✅"), width("➖ 1"), width("语言")) == (2, 2, 4, 4)


def test_columns_are_aligned_by_their_width_on_screen() -> None:
    lines = aligned([["✅", "b"], ["aaa", "c"]])
    assert lines == ["✅   b", "aaa  c"]


def test_markdown_escapes_its_own_sign() -> None:
    assert markdown([["a"], ["b|c"]]) == ["| a |", "|---|", "| b\\|c |"]


def test_long_text_is_broken_under_its_own_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    assert wrapped("aaaa bbbb cc", first="x: ") == ["x: aaaa bbbb", "   cc"]


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (True, "true"), (5e-5, "5e-05"), (1e-8, "1e-08"), (0.5, "0.5"), (0.0, "0.0"), ("", "-"),
     (("a b",), "'a b'"), (3, "3")],
)  # fmt: skip
def test_values_are_shown_as_they_could_be_typed(value: object, said: str) -> None:
    assert shown(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.123, "0.12 seconds"), (42.4, "42 seconds"), (600, "10.0 minutes"), (9000, "2.5 hours"), (1e6, "11.6 days")],
)
def test_a_duration_is_spelt_in_the_unit_that_people_use(seconds: float, said: str) -> None:
    assert spell(seconds) == said
