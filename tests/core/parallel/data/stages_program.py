"""Run by two or four ranks: steps that tune an adapter, a prefix or on pairs in a pipeline, and alone."""

from __future__ import annotations

import dataclasses
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from family_program import distance, row
from tuning_program import Pairs

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.off import adapters_off
from llm_run.core.adapters.prefix import apply_prefix
from llm_run.core.adapters.prefix_settings import PrefixSettings
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.causal_lm import CausalLM
from llm_run.core.config.training import TrainingOptions
from llm_run.core.convert.load import fill
from llm_run.core.convert.logical import parameters
from llm_run.core.data.collate import collate
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.ownership import share_out
from llm_run.core.parallel.pipeline.passes import Pipeline
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sharding import hold
from llm_run.core.parallel.tensor.arrays import cut
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import installed, load_family
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.evaluate import evaluate
from llm_run.core.trainer.objective import NextToken, Objective
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.preference import Preference, frozen
from llm_run.core.trainer.preference_loss import PreferenceLoss
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.step import MicroBatch, TrainStep

LAYOUTS = {
    2: {"pp2": ParallelPlan(pp=2), "pp2 in turns": ParallelPlan(pp=2, virtual_pp=2)},
    4: {
        "tp2.pp2": ParallelPlan(mp=2, pp=2),
        "pp2.stage1": ParallelPlan(pp=2, sharding=2, sharding_stage=1),
        "tp2.pp2 sequence": ParallelPlan(mp=2, pp=2, sequence_parallel=True),
    },
}
EVERY_FAMILY = ("lora", "prefix", "pairs")
"""What is done with each family under the first layout."""
LORA = LoraSettings(rank=3, alpha=6)
KINDS: dict[str, LoraSettings | PrefixSettings | None] = {
    "lora": LORA, "dora": dataclasses.replace(LORA, dora=True),
    "lora of the last layer": dataclasses.replace(LORA, targets=(r"blocks\.3\..*",)),
    "prefix": PrefixSettings(num_tokens=3), "projected prefix": PrefixSettings(num_tokens=3, projection_size=8),
    "pairs": None, "pairs without reference": None, "pairs with an adapter": LORA,
}  # fmt: skip
LOSSES = {
    "pairs": PreferenceLoss(kind="sigmoid", beta=0.5),
    "pairs with an adapter": PreferenceLoss(kind="kto_pair", beta=0.5),
    "pairs without reference": PreferenceLoss(kind="simpo", beta=0.5, gamma=0.3),
}  # fmt: skip
STEPS, BATCH = 2, 4
OPTIONS = TrainingOptions(learning_rate=1e-3, weight_decay=0.1, adam_epsilon=1e-4)


def micro_batches(kind: str, config: Any, mesh: Mesh, step: int) -> list[MicroBatch]:
    """This rank's share of a global batch, in micro-batches of one row or one pair."""
    share = BATCH // mesh.data_world
    first = step * BATCH + mesh.data_rank * share
    samples = {place: Pairs().sample(place) if kind in LOSSES else row(config, place) for place in range(2 * BATCH)}
    return [MicroBatch(collate([samples[place]], config, 0), place) for place in range(first, first + share)]


def prepared(kind: str, family: Family, config: Any, mesh: Mesh) -> tuple[CausalLM, Any, Objective]:
    """Return this rank's part of a model, its cut, and what is to be learnt."""
    found = []
    for seed in (3, 4):
        seed_all(seed)
        found.append(build_part(family, config, mesh, None, shares_rows=False))
    (model, stages), copy, settings = (found[0].model, found[0].cut), found[1].model, KINDS[kind]
    if isinstance(settings, PrefixSettings):
        apply_prefix(model, settings, seed=5)
    if isinstance(settings, LoraSettings):
        new_adapter(model, family, settings, seed=5)
        parts = model_parts(model)
        for name, parameter in parameters(model).items():
            if name.endswith("lora_B"):  # not zeros, so that all matrices learn from the first step on
                random = np.random.default_rng(zlib.crc32(name.encode()))
                fill(parameter, cut(random.normal(0, 0.1, parts[name].shape).astype(np.float32), parts[name]))
    if kind not in LOSSES:
        return model, stages, NextToken()
    reference = adapters_off if isinstance(settings, LoraSettings) else frozen(copy)
    return model, stages, Preference(LOSSES[kind], reference if LOSSES[kind].needs_reference else None)


def trained(kind: str, family: Family, config: Any, mesh: Mesh) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what steps and an evaluation after them say, and what this rank has of what was trained."""
    model, stages, objective = prepared(kind, family, config, mesh)
    model.train()
    holding = hold(model, mesh, model_parts(model))
    agreement = Agreement(mesh, holding.parts, share_out(holding.parts, mesh).owned)
    pipeline = Pipeline(model, stages, mesh, seed=3) if stages else None
    step = TrainStep(
        model, AdamW(holding, OPTIONS), Precision(OPTIONS), agreement, objective, seed=3, pipeline=pipeline
    )
    results = [step.run(micro_batches(kind, config, mesh, number), 1e-3) for number in range(STEPS)]
    score = evaluate(model, Pairs(), batch_size=2, pad_id=0, score=objective.score, mesh=mesh, pipeline=pipeline)
    said = {
        "losses": [result.loss for result in results], "norms": [result.grad_norm for result in results],
        "figures": [dict(result.figures) for result in results], "evaluation": score.metrics(),
    }  # fmt: skip
    return said, {name: (holding.parts[name], tensor.numpy()) for name, tensor in holding.tensors.items()}


def cases(size: int) -> Iterator[tuple[str, str, Any, tuple[str, ...]]]:
    """Yield a kind, a family, the shape of its model, and the layouts to compare."""
    layouts = tuple(LAYOUTS[size])
    for name in installed().families:
        for kind in EVERY_FAMILY if size == 2 else ("lora",):
            yield kind, name, load_family(name).card.sizes["tiny"], layouts[:1]
    deep = dataclasses.replace(load_family("llama").card.sizes["tiny-tied"], num_layers=4)
    for kind in KINDS:
        yield kind, "deep llama", deep, layouts


def main(result: Path, size: int) -> None:
    """Compare all."""
    (first, plan), *others = LAYOUTS[size].items()
    found: dict[str, Any] = {}
    with open_mesh(plan, timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {first: mesh} | {name: _mesh(plan, mesh.world, factory) for name, plan in others}
        for kind, name, config, layouts in cases(size):
            family = load_family(name.rpartition(" ")[2])
            alone, whole = trained(kind, family, config, Mesh())
            found[f"{kind}: {name}"] = {"alone": alone, "trained": sorted(whole)}
            for layout in layouts:
                here, held = trained(kind, family, config, meshes[layout])
                away = [distance(part, values, whole[key][1]) for key, (part, values) in held.items()]
                found[f"{kind}: {name}"][layout] = here | {"distance": max(away, default=0.0), "held": sorted(held)}
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
