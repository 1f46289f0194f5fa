"""Run by two ranks: a checkpoint of every family's model, as ranks of each layout have it before the first step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from llm_run.core.config.training import TrainingOptions
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sharding import hold
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.manager import installed, load_family
from llm_run.core.trainer.checkpoint import CheckpointStore
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.saver import Saver
from llm_run.core.trainer.snapshot import TrainerState

PLANS = {
    "tp2": ParallelPlan(mp=2),
    "pp2": ParallelPlan(pp=2),
    "stage3": ParallelPlan(sharding=2, sharding_stage=3),
}
SEED = 3


def save(name: str, mesh: Mesh, folder: Path) -> None:
    """Save a random model, each rank its part."""
    family = load_family(name)
    config = family.card.sizes["tiny"]
    seed_all(SEED)
    model = build_part(family, config, mesh, None).model
    optimizer = AdamW(hold(model, mesh, model_parts(model)), TrainingOptions())
    if mesh.is_main:
        folder.mkdir(parents=True)
    mesh.meet("the folder")
    shape = {f"model.{key}": value for key, value in config.to_fields().items()}
    identity = {"task": "pretrain", "family": name, **json.loads(json.dumps(shape))}
    saver = Saver(CheckpointStore(folder), model, optimizer, identity=identity, about={}, limit=None, mesh=mesh)
    assert saver.save(TrainerState(step=1), must=True)


def main(result: Path) -> None:
    """Save the tiny model of every family, alone and together."""
    first, *others = PLANS.items()
    with open_mesh(first[1], timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {first[0]: mesh} | {name: _mesh(plan, mesh.world, factory) for name, plan in others}
        for name in installed().families:
            for layout, own in meshes.items():
                save(name, own, result.parent / name / layout)
            if mesh.is_main:
                save(name, Mesh(), result.parent / name / "one")
        mesh.meet("the end")
    result.write_text("{}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
