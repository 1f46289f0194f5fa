"""Run by two ranks of which one ends in the middle of an answer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from answers import build, engine_of, requests

from llm_run.core.engine.paged_runner import PagedRunner
from llm_run.core.engine.ranks import follow
from llm_run.core.errors import DistributedError, LlmRunError
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.plan import ParallelPlan

FATAL_STEP = 4


def die_in_a_step(result: Path) -> None:
    """Let this process end without a word when it is about to compute a certain step."""
    compute, steps = PagedRunner.compute, iter(range(1, FATAL_STEP))

    def last(self: PagedRunner, pieces: Any) -> Any:
        if next(steps, None) is None:
            result.write_text("{}")
            os._exit(0)
        return compute(self, pieces)

    PagedRunner.compute = last  # type: ignore[method-assign]


def lead(model: Any) -> dict[str, Any]:
    """Ask for more than fits at once, and return what became of each request."""
    found: dict[str, Any] = {"said": []}
    with engine_of(model) as engine:
        handles = [engine.submit(request) for request in requests(model, "")]
        for handle in handles:
            try:
                found["said"].append(len(list(handle)))
            except LlmRunError as error:
                found["said"].append(str(error))
        found["alive"] = engine.is_alive
        found["failure"] = str(engine.failure)
    return found


def main(result: Path, dies: int) -> None:
    """Be one of the ranks, or the one that dies."""
    found: dict[str, Any] = {}
    with open_mesh(ParallelPlan(mp=2), timeout_s=30) as mesh:
        model = build("llama", mesh)
        if mesh.rank == dies:
            die_in_a_step(result)
        try:
            found = lead(model) if mesh.is_main else {"followed": follow(model)}
        except DistributedError as error:
            found = {"error": str(error)}
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
