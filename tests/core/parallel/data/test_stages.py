"""Pipeline stages, alone and with other axes, that tune an adapter, a prefix or on pairs, against one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.registry.manager import installed

Found = list[dict[str, Any]]
LIMIT = 600
"""Seconds: many families may be installed, and other tests may run beside this one."""
KINDS = (
    "lora", "dora", "lora of the last layer", "prefix", "projected prefix", "pairs", "pairs without reference",
    "pairs with an adapter",
)  # fmt: skip
every_family = pytest.mark.parametrize("name", installed().families)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Found]) -> Callable[[int], Found]:
    """Return a function that tells what each of so many ranks found out (``stages_program.py``)."""
    program, said = Path(__file__).parent / "stages_program.py", dict[int, Found | str]()

    def run(size: int) -> Found:
        if size not in said:
            said[size] = "the ranks failed before"  # in an earlier test, which told why
            said[size] = ranks(size, program, tmp_path_factory.mktemp("stages"), [str(size)], limit=LIMIT)
        answer = said[size]
        assert not isinstance(answer, str), answer
        return answer

    return run


def check(found: Found, case: str, layout: str) -> None:
    """Compare losses, figures and what was trained on every rank with one process."""
    for rank in found:
        alone, here = rank[case]["alone"], rank[case][layout]
        assert here["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert here["norms"] == pytest.approx(alone["norms"], rel=1e-4)
        assert here["distance"] < 1e-5
        for one, other in zip(here["figures"], alone["figures"], strict=True):
            assert one == {name: pytest.approx(value, abs=1e-5) for name, value in other.items()}
        assert here["evaluation"] == {
            name: pytest.approx(value, rel=1e-5, abs=1e-5) for name, value in alone["evaluation"].items()
        }
    assert {name for rank in found for name in rank[case][layout]["held"]} == set(found[0][case]["trained"])


@every_family
def test_stages_train_an_adapter_as_one_process(found: Callable[[int], Found], name: str) -> None:
    check(found(2), f"lora: {name}", "pp2")


@every_family
def test_stages_of_tensor_parallel_ranks_train_an_adapter_as_one_process(
    found: Callable[[int], Found], name: str
) -> None:
    check(found(4), f"lora: {name}", "tp2.pp2")


@every_family
def test_stages_train_a_prefix_as_one_process(found: Callable[[int], Found], name: str) -> None:
    check(found(2), f"prefix: {name}", "pp2")


@every_family
def test_stages_tune_on_pairs_as_one_process(found: Callable[[int], Found], name: str) -> None:
    check(found(2), f"pairs: {name}", "pp2")


@pytest.mark.parametrize("layout", ["pp2", "pp2 in turns", "tp2.pp2", "tp2.pp2 sequence", "pp2.stage1"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tuning_is_the_same_in_a_pipeline(found: Callable[[int], Found], kind: str, layout: str) -> None:
    check(found(2 if layout in ("pp2", "pp2 in turns") else 4), f"{kind}: deep llama", layout)


def test_each_stage_holds_the_adapters_of_its_own_layers(found: Callable[[int], Found]) -> None:
    first, last = (set(rank["lora: deep llama"]["pp2"]["held"]) for rank in found(2))
    assert first and last and not first & last
    assert not found(2)[0]["lora of the last layer: deep llama"]["pp2"]["held"]
