"""Becoming one of several processes: what keeps ranks from starting together. That they do, ``test_mesh.py`` shows."""

from __future__ import annotations

import re
from functools import partial

import pytest

from llm_run.core.errors import DistributedError, RefusedError
from llm_run.core.parallel import join
from llm_run.core.parallel.membership import Membership
from llm_run.core.parallel.plan import ParallelPlan

from .conftest import Star, together


def test_ranks_with_different_plans_are_told_whose_differs(star: Star) -> None:
    wires = star(0, 1, 2)
    plans = [ParallelPlan(dp=3), ParallelPlan(dp=3), ParallelPlan(pp=3)]
    found = together({rank: partial(join._compare_plans, wires[rank], plans[rank]) for rank in range(3)})
    for error in found.values():
        assert isinstance(error, DistributedError)
        assert error.ranks == (2,)
        assert str(error).startswith("rank 2 was started with another plan than rank 0 (ParallelPlan(dp=1, pp=3, ")
        assert str(error).endswith("Give all ranks the same options.")


def test_equal_plans_are_fine(star: Star) -> None:
    wires = star(0, 1)
    assert together({rank: partial(join._compare_plans, wires[rank], ParallelPlan(dp=2)) for rank in range(2)}) == {
        0: None,
        1: None,
    }


def test_a_port_that_rank_0_cannot_have_is_refused(taken_port: int) -> None:
    first = Membership(0, 2, 0, 2, ("127.0.0.1", taken_port), "PADDLE_TRAINERS_NUM")
    said = f"PADDLE_MASTER: 127.0.0.1:{taken_port} cannot be listened on by rank 0: Address already in use. "
    with pytest.raises(RefusedError, match=re.escape(f"{said}Give a free port.")):
        join._meet(first, (0, 1), 1.0)
