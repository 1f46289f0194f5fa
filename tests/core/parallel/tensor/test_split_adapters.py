"""Adapters on models that two and four tensor-parallel ranks share, against one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.errors import RefusedError
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.tensor.build import build_random

from .adapter_cases import Found, chosen, compute
from .cases import batch, cases, scrambled

TOLERANCE, SMALLEST = 1e-5, 1e-2
WORK = [(size, *each) for size in (2, 4) for each in chosen(list(cases()), size)]


@cache
def alone(name: str, kind: str) -> Found:
    """What one process computes."""
    case = cases()[name]
    return compute(case, batch(case[1]), scrambled, kind, Mesh())[1]


@pytest.fixture(scope="module")
def split_over(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Any]) -> Callable[[int], list[Found]]:
    """Return a function that lets so many ranks run ``adapter_program.py``, once."""

    @cache
    def found(size: int) -> list[Found]:
        folder = tmp_path_factory.mktemp("adapters")
        ranks(size, Path(__file__).parent / "adapter_program.py", folder, [str(size)], limit=300)
        return [dict(np.load(folder / f"{rank}.npz")) for rank in range(size)]

    return found


@pytest.mark.parametrize("sequence", [False, True], ids=["tensor", "sequence"])
@pytest.mark.parametrize(("size", "name", "kind"), WORK, ids=[f"{name} {kind} on {size}" for size, name, kind in WORK])
def test_a_split_adapter_begins_and_learns_as_in_one_process(
    split_over: Callable[[int], list[Found]], size: int, name: str, kind: str, sequence: bool
) -> None:
    for rank, found in enumerate(split_over(size)):
        for key, expected in alone(name, kind).items():
            here = found[f"{name} {kind} {sequence} {key}"]
            assert here.shape == expected.shape
            difference = np.abs(here.astype("float64") - expected).max()
            assert difference <= TOLERANCE * max(np.abs(expected).max(), SMALLEST), (rank, key, difference)
            if key.startswith("drawn "):
                assert np.array_equal(here, expected)


def test_pissa_is_refused_where_each_rank_has_a_part_of_a_matrix(lonely_mesh: Callable[..., Mesh]) -> None:
    family, config = cases()["llama-tiny"]
    model = build_random(family, config, lonely_mesh(2, 0))
    with pytest.raises(RefusedError, match="--pissa: true needs whole matrices"):
        new_adapter(model, family, LoraSettings(rank=2, alpha=4, pissa=True))
