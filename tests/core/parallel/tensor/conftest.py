"""What ranks found out about split models, and the same computed by one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import fill
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.parallel.groups import Group
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.plan import ParallelPlan

from .cases import cases, compute, scrambled

Found = dict[str, np.ndarray]
PROGRAM = Path(__file__).parent / "rank_program.py"
LIMIT = 300
"""Seconds: about twenty times what the ranks need on a machine that is theirs."""


def drawn(name: str) -> CausalLM:
    """Return the model of a case as one process draws it."""
    family, config = cases()[name]
    paddle.seed(7)
    return family.build_model(config)


@pytest.fixture(scope="session")
def split_over(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Any]) -> Callable[[int], list[Found]]:
    """Return a function that lets so many ranks run ``rank_program.py``, once, and returns what each found."""

    known: dict[int, list[Found] | Exception] = {}

    def find(size: int) -> list[Found] | Exception:
        folder = tmp_path_factory.mktemp("split")
        family, config = cases()["llama-tiny"]
        save_model_directory(drawn("llama-tiny"), family, config, None, folder / "model")
        try:
            ranks(size, PROGRAM, folder, [str(folder / "model"), str(size)], limit=LIMIT)
        except Exception as error:
            return error
        return [dict(np.load(folder / f"{rank}.npz")) for rank in range(size)]

    def found(size: int) -> list[Found]:
        if size not in known:
            known[size] = find(size)
        answer = known[size]
        if isinstance(answer, Exception):
            raise answer  # not tried again for every test
        return answer

    return found


@pytest.fixture(scope="session")
def alone() -> Callable[[str], Found]:
    """Return a function that computes a case in this process."""

    @cache
    def found(name: str) -> Found:
        model = drawn(name)
        values = {f"drawn {each}": parameter.numpy() for each, parameter in parameters(model).items()}
        for each, parameter in parameters(model).items():
            fill(parameter, scrambled(each, tuple(parameter.shape)))
        return values | compute(model, cases()[name][1])

    return found


@pytest.fixture
def lonely_mesh() -> Callable[..., Mesh]:
    """Return a function that makes the mesh of one tensor-parallel rank whose peers do not exist: it splits a model
    as they would, and can say nothing to them."""

    def make(degree: int, index: int, *, sequence_parallel: bool = False) -> Mesh:
        plan = ParallelPlan(mp=degree, sequence_parallel=sequence_parallel)
        return Mesh(plan=plan, rank=index, groups={("mp",): Group("mp", tuple(range(degree)), index)})

    return make
