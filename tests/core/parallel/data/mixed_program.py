"""Run by four ranks: a few training steps under mixed layouts, and alone."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from family_program import compared

from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.registry.manager import load_family

LAYOUTS = {
    "tp2 x pp2": ParallelPlan(mp=2, pp=2),
    "tp2 x pp2 with sequence parallelism": ParallelPlan(mp=2, pp=2, sequence_parallel=True),
    "pp4 interleaved": ParallelPlan(pp=4, virtual_pp=2),
    "tp2 x sharding2 stage 1": ParallelPlan(mp=2, sharding=2, sharding_stage=1),
    "tp2 x sharding2 stage 2": ParallelPlan(mp=2, sharding=2, sharding_stage=2),
    "tp2 x sharding2 stage 3": ParallelPlan(mp=2, sharding=2, sharding_stage=3),
    "pp2 x sharding2 stage 1": ParallelPlan(pp=2, sharding=2, sharding_stage=1),
    "dp2 x pp2": ParallelPlan(dp=2, pp=2),
    "dp2 x tp2": ParallelPlan(dp=2, mp=2),
    "sep4": ParallelPlan(sep=4),
    "dp2 x sep2": ParallelPlan(dp=2, sep=2),
    "sep2 x tp2 with sequence parallelism": ParallelPlan(sep=2, mp=2, sequence_parallel=True),
    "pp2 x sep2": ParallelPlan(pp=2, sep=2),
    "sep2 x sharding2 stage 3": ParallelPlan(sharding=2, sep=2, sharding_stage=3),
}
MODELS = {
    # Tied embeddings, which first and last stage share, and layers enough for eight pieces.
    "llama": ("tiny-tied", {"num_layers": 8}),
    # Prompts that are seen both ways, positions in two rows, and biases.
    "chatglm": ("tiny", {"num_layers": 8}),
}


def main(result: Path) -> None:
    """Compare every layout."""
    first, *others = LAYOUTS.items()
    with open_mesh(first[1], timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {first[0]: mesh} | {name: _mesh(plan, mesh.world, factory) for name, plan in others}
        found = {}
        for name, (size, changes) in MODELS.items():
            family = load_family(name)
            found[name] = compared(family, dataclasses.replace(family.card.sizes[size], **changes), meshes)
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
