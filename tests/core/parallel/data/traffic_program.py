"""Run by four ranks: one training step under several layouts, with every call that sends a tensor noted, and what
``llm-run plan`` says of the same step."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.config.groups import ConvertOptions, DataOptions, DecodingOptions, LaunchOptions, ModelOptions
from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import Sample
from llm_run.core.estimate.communication import traffic_of_step
from llm_run.core.estimate.layout import Layout
from llm_run.core.estimate.shapes import shapes_of
from llm_run.core.parallel.exchange import Edge
from llm_run.core.parallel.groups import Group, GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.ownership import share_out
from llm_run.core.parallel.pipeline.passes import Pipeline
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sharding import hold
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.manager import load_family
from llm_run.core.run import Run, RunConfig
from llm_run.core.trainer.agreement import Agreement
from llm_run.core.trainer.objective import NextToken
from llm_run.core.trainer.optimizer import AdamW
from llm_run.core.trainer.precision import Precision
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.recompute import apply_recompute
from llm_run.core.trainer.step import MicroBatch, TrainStep

LENGTH, ROWS, MICRO = 12, 2, 2
CASES: dict[str, tuple[ParallelPlan, str, str, str]] = {
    "dp4": (ParallelPlan(dp=4), "bloom", "tiny", ""),
    "stage 1 x 4": (ParallelPlan(sharding=4, sharding_stage=1), "gpt3", "tiny", ""),
    "dp2 x stage 2 x 2": (ParallelPlan(dp=2, sharding=2, sharding_stage=2), "glm", "tiny", ""),
    "stage 3 x 4": (ParallelPlan(sharding=4, sharding_stage=3), "qwen", "tiny", "full"),
    "stage 3 x 4, an adapter": (ParallelPlan(sharding=4, sharding_stage=3), "llama", "tiny-tied", ""),
    "tp2 x stage 3 x 2": (ParallelPlan(mp=2, sharding=2, sharding_stage=3), "llama", "tiny-tied", ""),
    "tp4": (ParallelPlan(mp=4), "chatglm2", "tiny", "full"),
    "dp2 x tp2, sequence parallel": (ParallelPlan(dp=2, mp=2, sequence_parallel=True), "llama", "tiny", "full_attn"),
    "tp2 x pp2": (ParallelPlan(mp=2, pp=2), "opt", "tiny", ""),
    "tp2 x pp2, sequence parallel": (ParallelPlan(mp=2, pp=2, sequence_parallel=True), "baichuan", "tiny", "core_attn"),
    "dp2 x pp2 of two pieces": (ParallelPlan(dp=2, pp=2, virtual_pp=2), "llama", "tiny-tied", ""),
    "sep4": (ParallelPlan(sep=4), "llama", "tiny", ""),
    "sep2 x tp2, sequence parallel": (ParallelPlan(sep=2, mp=2, sequence_parallel=True), "chatglm", "tiny", "full"),
    "sep2 x stage 2 x 2": (ParallelPlan(sep=2, sharding=2, sharding_stage=2), "qwen", "tiny", "full_attn"),
}
"""Plan, family, size, and what is recomputed."""
LORA = LoraSettings(rank=4, alpha=8)
CALL = re.compile(r"(\w+)\(.*\) on (\w+) \[([\d, ]*)\]")
OPERATIONS = {"all_reduce": "all-reduce", "all_gather": "all-gather", "all_to_all": "all-to-all"}
SIZES = {"float32": 4, "int64": 8}
Calls = dict[str, list[int]]


@contextmanager
def noted(calls: Calls) -> Iterator[None]:
    """Count calls and bytes while entered, by ranks and operation; gloo is told of each before it begins."""
    ready, send = Group.ready, Edge.send

    def note(ranks: tuple[int, ...], operation: str, size: int) -> None:
        entry = calls.setdefault(f"{list(ranks)} {operation}", [0, 0])
        entry[0] += 1
        entry[1] += size

    def noting_ready(group: Group, what: str) -> None:
        found = CALL.fullmatch(what)
        assert found is not None, what
        name, dtype, shape = found.groups()
        note(group.ranks, OPERATIONS[name], SIZES[dtype] * math.prod(map(int, filter(None, shape.split(", ")))))
        ready(group, what)

    def noting_send(edge: Edge, *tensors: Any) -> None:
        for x in tensors:
            note(edge.group.ranks, "send", int(x.size) * SIZES[str(x.dtype).removeprefix("paddle.")])
        send(edge, *tensors)

    Group.ready, Edge.send = noting_ready, noting_send  # type: ignore[method-assign]
    try:
        yield
    finally:
        Group.ready, Edge.send = ready, send  # type: ignore[method-assign]


def run_of(family: Any, config: Any, recompute: str) -> Run:
    """A run of full rows."""
    training = TrainingOptions(
        per_device_train_batch_size=ROWS, gradient_accumulation_steps=MICRO, recompute=bool(recompute),
        recompute_granularity=recompute or "full",
    )  # fmt: skip
    options = RunConfig(
        task="pretrain", family=family.card.name, model=ModelOptions(), data=DataOptions(max_length=LENGTH),
        training=training, decoding=DecodingOptions(), convert=ConvertOptions(), launch=LaunchOptions(), origins={},
    )  # fmt: skip
    return Run(config=options, family=family, model_config=config)


def counted(mesh: Mesh, run: Run, lora: LoraSettings | None) -> Calls:
    """Make one step, and return what it called."""
    options, config = run.config.training, run.model_config
    seed_all(3)
    part = build_part(run.family, config, mesh, None)
    if lora is not None:
        new_adapter(part.model, run.family, lora)
    part.model.train()
    if options.recompute:
        apply_recompute(part.model, options.recompute_granularity)
    holding = hold(part.model, mesh, model_parts(part.model))
    agreement = Agreement(mesh, holding.parts, share_out(holding.parts, mesh).owned)
    pipeline = Pipeline(part.model, part.cut, mesh, seed=3) if part.cut else None
    step = TrainStep(
        part.model, AdamW(holding, options), Precision(options), agreement, NextToken(), seed=3, pipeline=pipeline
    )
    micro_batches = []
    for position in range(0, ROWS * MICRO, ROWS):
        ids = (np.arange(LENGTH) + position) % 8 + 8
        rows = [Sample(ids, ids, np.ones(LENGTH, dtype=np.int32), np.zeros(LENGTH, dtype=bool))] * ROWS
        micro_batches.append(MicroBatch(collate(rows, config, 0), position))
    calls: Calls = {}
    with noted(calls):
        step.run(micro_batches, 1e-3)
    return calls


def foreseen(mesh: Mesh, run: Run, lora: LoraSettings | None) -> Calls:
    """Return what the plan of this rank says."""
    layout = Layout(shapes_of(run.family, run.model_config, lora), mesh.plan)
    found: Calls = {}
    for traffic in traffic_of_step(run, layout, layout.rank(mesh.rank), on_gpu=False):
        entry = found.setdefault(f"{list(traffic.ranks)} {traffic.operation}", [0, 0])
        entry[0] += traffic.calls
        entry[1] += traffic.size
    return found


def main(result: Path) -> None:
    """Go through all cases."""
    first, *others = CASES
    with open_mesh(CASES[first][0], timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {first: mesh} | {name: _mesh(CASES[name][0], mesh.world, factory) for name in others}
        found = {}
        for name, (plan, family_name, size, recompute) in CASES.items():
            family = load_family(family_name)
            config = dataclasses.replace(family.card.sizes[size], num_layers=4)
            run, lora = run_of(family, config, recompute), LORA if name.endswith("an adapter") else None
            assert meshes[name].plan == plan
            found[name] = {
                "counted": counted(meshes[name], run, lora), "foreseen": foreseen(meshes[name], run, lora),
            }  # fmt: skip
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
