"""Run by two or four ranks: models of all families, each split, computed once and merged again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
from cases import FOUR, cases, compute, is_computed, scrambled

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import fill
from llm_run.core.convert.logical import parameters
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.tensor.arrays import cut
from llm_run.core.parallel.tensor.build import build_random, load_part, whole_parameters
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.trainer.recompute import apply_recompute

Found = dict[str, np.ndarray]
DROPPING = "gpt3-tiny"


def every_family(mesh: Mesh, kind: str) -> Found:
    """Compute each tiny model."""
    found: Found = {}
    for name, (family, config) in cases().items():
        if not is_computed(name, kind) or (mesh.world.size > 2 and name not in FOUR):
            continue
        paddle.seed(7)
        model = build_random(family, config, mesh)
        found |= {f"{name} drawn {each}": parameter.numpy() for each, parameter in parameters(model).items()}
        scramble(model)
        found |= {f"{name} {each}": values for each, values in compute(model, config).items()}
    return found


def scramble(model: CausalLM) -> None:
    """Give every parameter its part of known values."""
    parts = model_parts(model)
    for name, parameter in parameters(model).items():
        fill(parameter, cut(scrambled(name, parts[name].shape), parts[name]))


def with_dropout(mesh: Mesh) -> Found:
    """Compute a model that drops, as it is and with its blocks computed again in the backward pass."""
    family, config = cases()[DROPPING]
    config = replace(config, attention_dropout=0.4, output_dropout=0.2, embedding_dropout=0.1)
    found: Found = {}
    for granularity in ("", "full", "full_attn"):
        model = build_random(family, config, mesh)
        scramble(model)
        if granularity:
            apply_recompute(model, granularity)
        paddle.seed(3)
        found |= {f"dropped {granularity}: {each}": values for each, values in compute(model, config).items()}
        found[f"dropped {granularity}: next"] = paddle.rand([4]).numpy()
    return found


def from_a_file(mesh: Mesh, directory: Path) -> Found:
    """Load a model directory, and only the block of a stage of it."""
    family, config = cases()["llama-tiny"]
    model = load_part(family, config, directory, mesh)
    stage = load_part(family, config, directory, mesh, wanted=lambda name: name.startswith("blocks.1."))
    found = {f"loaded {name}": values for name, values in whole_parameters(model)}
    return found | {f"stage {name}": values for name, values in whole_parameters(stage)}


def main(result: Path, directory: Path) -> None:
    """Do all of it with and without sequence parallelism."""
    size = int(sys.argv[3])
    found: Found = {}
    with open_mesh(ParallelPlan(mp=size), timeout_s=60) as mesh:
        for kind, is_split in (("tensor", False), ("sequence", True)):
            this = replace(mesh, plan=replace(mesh.plan, sequence_parallel=is_split))
            found |= {f"{kind}: {name}": values for name, values in every_family(this, kind).items()}
            if size == 2:
                found |= {f"{kind}: {name}": values for name, values in with_dropout(this).items()}
        if size == 2:
            found |= from_a_file(mesh, directory)
        mesh.meet("the end")
    np.savez(result.with_suffix(".npz"), **found)
    result.write_text(json.dumps({}))


main(Path(sys.argv[1]), Path(sys.argv[2]))
