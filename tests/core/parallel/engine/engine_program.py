"""Run by two ranks: rank 0 answers with an engine, and the other one computes its part."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from answers import PECULIAR, answered, build, change, engine_of, requests, searched

from llm_run.core.causal_lm import CausalLM
from llm_run.core.engine.ranks import follow
from llm_run.core.parallel import wire
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.registry.manager import installed

PATIENCE_S = 3.0
"""Of ranks that wait for each other, in the test of a longer silence."""


def ask(model: CausalLM, kind: str, mesh: Mesh) -> Any:
    """Return what rank 0 is answered; ``None`` on the other rank."""
    if kind == "beams":
        return searched(model)
    return answered(model, kind) if mesh.is_main else follow(model)


def wait_long(model: CausalLM, mesh: Mesh) -> list[int] | None:
    """Return an answer that is asked for after a silence longer than ranks wait for each other."""
    if not mesh.is_main:
        return follow(model)
    with engine_of(model) as engine:
        time.sleep(PATIENCE_S + 1.5)
        return [event.token for event in engine.submit(requests(model, "")[0])]


def main(result: Path, prefix: Path) -> None:
    """Ask every family, and one of them for all that there is."""
    found: dict[str, Any] = {}
    with open_mesh(ParallelPlan(mp=2), timeout_s=60) as mesh:
        for name in installed().families:
            found[name] = ask(build(name, mesh), "", mesh)
        for kind in PECULIAR:
            model = build("llama", mesh, uneven=kind == "chance")
            change(model, kind, prefix)
            found[kind] = ask(model, kind, mesh)
        model = build("llama", mesh)
        mesh.world.wire.timeout_s, wire.GRACE = PATIENCE_S, 0.0
        found["idle"] = wait_long(model, mesh)
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
