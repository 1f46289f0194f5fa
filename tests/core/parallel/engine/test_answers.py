"""Two ranks that share each matrix answer with the tokens of one process, for every installed family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.parallel.mesh import Mesh
from llm_run.core.registry.manager import installed

from .answers import LONG, answered, build, change, one_by_one, requests, searched, write_prefix

LIMIT = 300
"""Seconds: many families may be installed, and other tests may run beside this one."""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tuned prefix."""
    folder = tmp_path_factory.mktemp("prefix")
    write_prefix(folder)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Any], prefix: Path) -> dict[str, Any]:
    """What rank 0 was answered, by family or kind of test (``engine_program.py``)."""
    program = Path(__file__).parent / "engine_program.py"
    answers: dict[str, Any] = ranks(2, program, tmp_path_factory.mktemp("answers"), [str(prefix)], limit=LIMIT)[0]
    return answers


@pytest.mark.parametrize("name", installed().families)
def test_ranks_that_share_matrices_answer_as_one_process(found: Any, name: str) -> None:
    model = build(name, Mesh())
    here = found[name]
    assert here["answers"] == one_by_one(model, "")
    assert len({token for answer in here["answers"] for token in answer}) > 10, "the answers could be anybody's"
    assert here["cancelled after"] < LONG
    # A prompt that sees itself both ways is computed whole, and shares nothing.
    assert model.config.prefix_lm or (here["preempted"] > 0 and here["found"] > 0)


def test_each_request_gets_its_adapter(found: Any, prefix: Path) -> None:
    model = build("llama", Mesh())
    plain = one_by_one(model, "")
    change(model, "adapters", prefix)
    expected = answered(model, "adapters")["answers"]
    assert found["adapters"]["answers"] == expected
    asked = requests(model, "adapters")
    assert [one == other for one, other in zip(expected, plain, strict=True)] == [
        each.adapter is None for each in asked
    ]


@pytest.mark.parametrize("kind", ["merged", "prefix", "chance"])
def test_ranks_answer_as_one_process_with_a(found: Any, kind: str, prefix: Path) -> None:
    model = build("llama", Mesh(), uneven=kind == "chance")
    plain = one_by_one(model, "")
    change(model, kind, prefix)
    assert found[kind]["answers"] == one_by_one(model, kind) != plain


def test_an_8_bit_cache_holds_what_each_rank_has_of_the_heads(found: Any) -> None:
    assert found["int8"]["answers"] == answered(build("llama", Mesh()), "int8")["answers"]


def test_every_rank_finds_the_beams_of_one_process(found: Any) -> None:
    assert found["beams"] == searched(build("llama", Mesh()))


def test_ranks_wait_for_work_longer_than_for_each_other(found: Any) -> None:
    assert found["idle"] == one_by_one(build("llama", Mesh()), "")[0]
