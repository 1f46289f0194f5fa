"""Run by two ranks: a few training steps of every family under each layout of data parallelism, and alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.ownership import share_out
from llm_run.core.parallel.pipeline.passes import Pipeline
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sharding import hold
from llm_run.core.parallel.slices import Part
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.manager import installed, load_family
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.objective import NextToken
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.step import MicroBatch, StepResult, TrainStep

LAYOUTS = {
    "data_parallel": ParallelPlan(dp=2),
    "sharding_stage1": ParallelPlan(sharding=2, sharding_stage=1),
    "sharding_stage2": ParallelPlan(sharding=2, sharding_stage=2),
    "sharding_stage3": ParallelPlan(sharding=2, sharding_stage=3),
    "tensor_parallel": ParallelPlan(mp=2),
    "sequence_parallel": ParallelPlan(mp=2, sequence_parallel=True),
    "pipeline_parallel": ParallelPlan(pp=2),
    "sep_parallel": ParallelPlan(sep=2),
}
STEPS, BATCH = 2, 4
# A bias that changes no output (that of the keys) has gradients of rounding errors: they must not count.
OPTIONS = TrainingOptions(learning_rate=1e-3, weight_decay=0.1, adam_epsilon=1e-5)


def row(config: Any, position: int) -> Sample:
    """A prompt and an answer, of a length that depends on the position."""
    generator = np.random.default_rng(position)
    ids = generator.integers(3, config.vocab_size, [int(generator.integers(8, 17))])
    labels = np.append(ids[1:], IGNORED)
    labels[:3] = IGNORED
    return Sample(ids, labels, np.ones(len(ids), dtype=np.int32), np.arange(len(ids)) < 4)


def micro_batches(config: Any, mesh: Mesh, step: int) -> list[MicroBatch]:
    """This rank's share of a global batch, in micro-batches of one row."""
    share = BATCH // mesh.data_world
    first = step * BATCH + mesh.data_rank * share
    return [
        MicroBatch(collate([row(config, position)], config, 0), position) for position in range(first, first + share)
    ]


def trained(family: Any, config: Any, mesh: Mesh) -> tuple[list[StepResult], dict[str, tuple[Part, np.ndarray]]]:
    """Return what each step did, and what this rank has of each parameter in the end."""
    seed_all(3)
    part = build_part(family, config, mesh, None)
    model = part.model
    model.train()
    holding = hold(model, mesh, model_parts(model))
    agreement = Agreement(mesh, holding.parts, share_out(holding.parts, mesh).owned)
    pipeline = Pipeline(model, part.cut, mesh, seed=3) if part.cut else None
    optimizer, precision = AdamW(holding, OPTIONS), Precision(OPTIONS)
    step = TrainStep(model, optimizer, precision, agreement, NextToken(), seed=3, pipeline=pipeline)
    results = [step.run(micro_batches(config, mesh, number), 1e-3) for number in range(STEPS)]
    return results, {name: (holding.parts[name], tensor.numpy()) for name, tensor in holding.tensors.items()}


def compared(family: Any, config: Any, meshes: dict[str, Mesh]) -> dict[str, Any]:
    """Return losses of each layout, and how far this rank's parameters are from those of one process."""
    results, whole = trained(family, config, Mesh())
    found: dict[str, Any] = {"alone": [done.loss for done in results], "norms": [done.grad_norm for done in results]}
    for name, mesh in meshes.items():
        theirs, parameters = trained(family, config, mesh)
        away = {key: distance(part, values, whole[key][1]) for key, (part, values) in parameters.items()}
        worst = max(away, key=lambda key: away[key])
        found[name] = {
            "losses": [done.loss for done in theirs], "norms": [done.grad_norm for done in theirs],
            "distance": away[worst], "where": worst,
        }  # fmt: skip
    return found


def distance(part: Part, values: np.ndarray, whole: np.ndarray) -> float:
    """Return the largest difference between a part and the whole of a parameter."""
    away = (np.abs(values[here.index()] - whole[there.index()]) for here, there in part.blocks())
    return max(float(difference.max(initial=0.0)) for difference in away)


def main(result: Path) -> None:
    """Compare every family."""
    first, *others = LAYOUTS.items()
    with open_mesh(first[1], timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {first[0]: mesh} | {name: _mesh(plan, mesh.world, factory) for name, plan in others}
        found = {
            name: compared(load_family(name), load_family(name).card.sizes["tiny"], meshes)
            for name in installed().families
        }
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
