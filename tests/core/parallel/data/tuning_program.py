"""Run by two ranks: steps of preference and prefix tuning under layouts of data parallelism, and alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.adapters.prefix import apply_prefix
from llm_run.core.adapters.prefix_settings import PrefixSettings
from llm_run.core.causal_lm import CausalLM
from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.collate import collate
from llm_run.core.data.packing import join
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.parallel.collectives import all_reduce
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.ownership import share_out
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sep.model import share_rows
from llm_run.core.parallel.sharding import hold, hold_frozen
from llm_run.core.parallel.tensor.build import build_random
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.manager import installed, load_family
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.evaluate import evaluate
from llm_run.core.trainer.objective import NextToken, Objective
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.passes import WholeModel, final_hidden
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.preference import Preference, frozen
from llm_run.core.trainer.preference_loss import PreferenceLoss
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.step import MicroBatch, TrainStep

LAYOUTS = {
    "dp2": ParallelPlan(dp=2), "stage3": ParallelPlan(sharding=2, sharding_stage=3), "tp2": ParallelPlan(mp=2),
    "sep2": ParallelPlan(sep=2),
}  # fmt: skip
STEPS, BATCH = 2, 4
OPTIONS = TrainingOptions(learning_rate=1e-3, adam_epsilon=1e-3)
FAMILY = load_family("llama")
CONFIG = FAMILY.card.sizes["tiny"]


class Pairs:
    """A random prompt and two random answers of unequal length."""

    epoch_size, fingerprint = 5, "pairs"

    def sample(self, position: int) -> Sample:
        generator = np.random.default_rng(position)
        prompt = generator.integers(3, 60, [4])
        sides = []
        for length in generator.integers(3, 9, [2]):
            ids = np.concatenate([prompt, generator.integers(3, 60, [length])])
            labels = np.append(ids[1:], IGNORED)
            labels[:3] = IGNORED
            sides.append(Sample(ids, labels, np.ones(len(ids), np.int32), np.arange(len(ids)) < 4))
        return join(sides)


def micro_batches(mesh: Mesh, step: int) -> list[MicroBatch]:
    """This rank's share of a global batch, in micro-batches of one pair."""
    share = BATCH // mesh.data_world
    first = step * BATCH + mesh.data_rank * share
    return [MicroBatch(collate([Pairs().sample(place)], CONFIG, 0), place) for place in range(first, first + share)]


def built(mesh: Mesh, seed: int) -> CausalLM:
    """Return this rank's part of a random model: in stage 3, its rows."""
    seed_all(seed)
    return build_part(FAMILY, CONFIG, mesh, None).model


def prepared(kind: str, mesh: Mesh) -> tuple[CausalLM, Objective, CausalLM | None]:
    """Return a model, what is to be learnt (pairs with a loss of that name, or a prefix), and its reference."""
    model, reference = built(mesh, 3), built(mesh, 4)
    if kind != "prefix":
        lent = frozen(reference, hold_frozen(reference, mesh, model_parts(reference)))
        return model, Preference(PreferenceLoss(kind=kind, beta=0.5), lent), reference
    return apply_prefix(model, PrefixSettings(num_tokens=3, projection_size=8)), NextToken(), None


def trained(kind: str, mesh: Mesh) -> dict[str, Any]:
    """Return what the steps and an evaluation after them say."""
    model, objective, reference = prepared(kind, mesh)
    holding = hold(model, mesh, model_parts(model))
    agreement = Agreement(mesh, holding.parts, share_out(holding.parts, mesh).owned)
    step = TrainStep(model, AdamW(holding, OPTIONS), Precision(OPTIONS), agreement, objective, seed=3)
    results = [step.run(micro_batches(mesh, number), 1e-3) for number in range(STEPS)]
    score = evaluate(model, Pairs(), batch_size=2, pad_id=0, score=objective.score, mesh=mesh)
    holding.rest()
    return {
        "losses": [result.loss for result in results], "norms": [result.grad_norm for result in results],
        "figures": [dict(result.figures) for result in results], "evaluation": score.metrics(),
        "whole": [
            name for one in (model, reference) if one for name, tensor in one.named_parameters()
            if tensor._is_initialized()
        ],
    }  # fmt: skip


def prefixed(name: str, mesh: Mesh) -> dict[str, float]:
    """Return the loss of a pair as plain rows behind a prefix, and the size of the prefix's gradient, in one family."""
    family = load_family(name)
    config = family.card.sizes["tiny"]
    seed_all(3)
    model = apply_prefix(share_rows(build_random(family, config, mesh), mesh), PrefixSettings(num_tokens=3), seed=5)
    model.eval()
    batch = collate([Pairs().sample(0)], config, 0)
    (loss_of,) = NextToken().losses(WholeModel(model), [batch], list)
    loss, _ = loss_of(final_hidden(model, batch))
    loss.backward()
    sums = [all_reduce(x, mesh.group("sep")) for x in (loss.detach(), *(p.grad for p in model.prefix.parameters()))]
    return {"loss": sums[0].item(), "gradient": sum(float(x.square().sum()) for x in sums[1:]) ** 0.5}


def main(result: Path) -> None:
    """Train in every layout."""
    (first, plan), *others = LAYOUTS.items()
    with open_mesh(plan, timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {"alone": Mesh(), first: mesh} | {name: _mesh(plan, mesh.world, factory) for name, plan in others}
        found: dict[str, Any] = {
            kind: {name: trained(kind, where) for name, where in meshes.items()}
            for kind in ("sigmoid", "kto_pair", "prefix")
        }
        split = [meshes[name] for name in ("alone", "tp2", "sep2")]
        found["families"] = {name: [prefixed(name, where) for where in split] for name in installed().families}
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
