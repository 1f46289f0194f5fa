"""Run by two ranks: steps that train an adapter under layouts of data parallelism, and alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.ownership import share_out
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sharding import hold
from llm_run.core.registry.manager import load_family
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.objective import NextToken
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.step import MicroBatch, TrainStep

LAYOUTS = {
    "dp2": ParallelPlan(dp=2),
    **{f"stage{stage}": ParallelPlan(sharding=2, sharding_stage=stage) for stage in (1, 2, 3)},
}
KINDS = {"lora": LoraSettings(rank=4, alpha=8), "dora": LoraSettings(rank=4, alpha=8, dora=True)}
STEPS, BATCH = 3, 4
OPTIONS = TrainingOptions(learning_rate=1e-3, adam_epsilon=1e-5)
FAMILY = load_family("llama")
CONFIG = FAMILY.card.sizes["tiny"]


def row(position: int) -> Sample:
    """A row of a length that depends on the position."""
    generator = np.random.default_rng(position)
    ids = generator.integers(3, CONFIG.vocab_size, [int(generator.integers(8, 17))])
    return Sample(ids, np.append(ids[1:], IGNORED), np.ones(len(ids), dtype=np.int32), np.arange(len(ids)) < 4)


def micro_batches(mesh: Mesh, step: int) -> list[MicroBatch]:
    """This rank's share of a global batch, in micro-batches of one row."""
    share = BATCH // mesh.data_world
    first = step * BATCH + mesh.data_rank * share
    return [MicroBatch(collate([row(place)], CONFIG, 0), place) for place in range(first, first + share)]


def trained(settings: LoraSettings, mesh: Mesh) -> dict[str, Any]:
    """Return losses and norms of the steps, how many values this rank updates, and how many it has between them."""
    seed_all(3)
    model = build_part(FAMILY, CONFIG, mesh, None, shares_rows=not settings.dora).model
    new_adapter(model, FAMILY, settings)
    model.train()
    holding = hold(model, mesh)
    agreement = Agreement(mesh, holding.parts, share_out(holding.parts, mesh).owned)
    rates = {name: 4.0 for name in holding.tensors if name.endswith("lora_B")}
    optimizer = AdamW(holding, OPTIONS, rates)
    step = TrainStep(model, optimizer, Precision(OPTIONS), agreement, NextToken(), seed=3)
    results = [step.run(micro_batches(mesh, number), 1e-2) for number in range(STEPS)]
    return {
        "losses": [result.loss for result in results], "norms": [result.grad_norm for result in results],
        "values": sum(int(tensor.size) for tensor in holding.tensors.values()),
        "whole": [name for name, parameter in model.named_parameters() if parameter._is_initialized()],
    }  # fmt: skip


def main(result: Path) -> None:
    """Train both kinds in every layout."""
    (first, plan), *others = LAYOUTS.items()
    with open_mesh(plan, timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {"alone": Mesh(), first: mesh} | {name: _mesh(plan, mesh.world, factory) for name, plan in others}
        found = {
            kind: {name: trained(settings, where) for name, where in meshes.items()} for kind, settings in KINDS.items()
        }
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
