from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def page(project: Path) -> Any:
    return runpy.run_path(str(project / "benchmarks" / "layout_page.py"))["page"]


def row(family: str, layout: str, loss: float, **more: Any) -> dict[str, Any]:
    known = {"weights": 2e-7, "good": loss < 1e-5, "same": True, "samples": True}
    return {"family": family, "layout": layout, "loss": loss, **known, **more}


END = {"good": 3, "of": 3, "bound": 1e-5, "steps": 20, "seconds": 300, "cpu_seconds": 100}


def test_a_row_is_a_layout_and_a_column_a_family(page: Any) -> None:
    refused = {"family": "b", "layout": "tp2", "refused": "--tensor_parallel_degree 2 does not divide the 3 heads"}
    more = row("a", "dp2 x tp2", 0.0)
    text = page([row("a", "one", 0.0), row("b", "one", 0.0), row("a", "tp2", 3.26e-7), refused, END, more, END])
    assert "| layout | a | b |\n| --- | --- | --- |\n| tp2 | 3e-7 / 2e-7 | [1] |\n| dp2 x tp2 | 0 / 2e-7 |  |\n" in text
    assert "[1] --tensor_parallel_degree 2 does not divide the 3 heads" in text
    assert "This page took 3 minutes of CPU time" in text and "for 20 steps" in text and "Resumed" not in text
    assert "The worst of all: 3.3e-07 and 2.0e-07; 2 of 2 are within the bounds." in text


def test_mistakes_have_a_table_of_their_own_and_stay_out_of_the_other(page: Any) -> None:
    made = row("a", "dp2", 2e-3, defect="sums are left out", weights=1e-2, good=True)
    text = page([row("a", "one", 0.0), row("a", "tp2", 0.0), made, END])
    assert "| mistake | layout | differs by |" in text and "| sums are left out | dp2 | 2e-3 / 1e-2 |" in text
    assert "The worst of all: 0.0e+00 and 2.0e-07; 1 of 1 are within the bounds." in text


def test_a_mistake_that_does_not_show_stands_out(page: Any) -> None:
    assert "| dp2 | **1e-7 / 2e-7** |" in page(
        [row("a", "one", 0.0), row("a", "dp2", 1e-7, defect="sums are left out", good=False), END]
    )


def test_pairs_have_a_table_of_their_own_and_failures_stand_out(page: Any) -> None:
    pairs = [row("a", to, 0.0, source=source) for source in ("one", "tp2") for to in ("one", "tp2")]
    pairs[1] |= {"loss": 2e-3, "good": False}
    pairs[2] |= {"same": False, "good": False}
    text = page([row("a", "one", 0.0), *pairs, END])
    assert "| from / to | one | tp2 |" in text and "| one | 0 / 2e-7 | **2e-3 / 2e-7** |" in text
    assert "In\n3 of 4 pairs the state" in text
    assert "The worst of all pairs: 2.0e-03 and 2.0e-07; 2 of 4 are within the bounds." in text
