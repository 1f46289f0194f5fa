"""Run by the ranks of a pipeline: the gradients of each stage against those of the whole model, in the same process."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from llm_run.core.convert.logical import parameters
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.ops import linear_cross_entropy
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.pipeline.passes import Pipeline
from llm_run.core.parallel.pipeline.stage import cut_family
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.tensor.arrays import cut
from llm_run.core.parallel.tensor.build import build_random
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import installed, load_family
from llm_run.core.trainer.diagnose import first_non_finite_in_pipeline
from llm_run.core.trainer.inputs import to_inputs
from llm_run.core.trainer.objective import Loss, NextToken
from llm_run.core.trainer.recompute import apply_recompute
from llm_run.core.trainer.step import MicroBatch

SEED = 11
SCALE = 4.0


def batches(config: ModelConfig, count: int, lengths: Sequence[Sequence[int]] = ((7, 9), (12,))) -> list[Batch]:
    """Micro-batches of two rows: one packed of two records, one padded; their prompts are not learnt."""
    random = np.random.default_rng(5)

    def row(records: Sequence[int], more: int) -> Sample:
        segments = np.repeat(np.arange(1, len(records) + 1), np.asarray(records) + more).astype(np.int32)
        starts = np.flatnonzero(np.diff(segments, prepend=0))
        prefix = (np.arange(len(segments)) - starts[segments - 1]) < 3
        ids = random.integers(10, config.vocab_size, len(segments))
        labels = np.where(prefix, IGNORED, random.integers(0, config.vocab_size, len(segments)))
        return Sample(ids, labels, segments, prefix)

    return [collate([row(records, index % 2) for records in lengths], config, 0) for index in range(count)]


def reference(family: Family, config: ModelConfig, given: Sequence[Batch]) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of one process."""
    paddle.seed(SEED)
    model = family.build_model(config)
    num_supervised = sum(batch.num_supervised for batch in given)
    total = 0.0
    for batch in given:
        inputs = to_inputs(batch, config)
        hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
        loss_sum, _ = linear_cross_entropy(hidden_BSH, model.head, inputs.labels_BS)
        (loss_sum * (SCALE / num_supervised)).backward()
        total += loss_sum.item() / num_supervised
    return total, {name: parameter.grad.numpy() for name, parameter in parameters(model).items()}


def build(mesh: Mesh, family: Family, config: ModelConfig, virtual: int) -> Pipeline:
    """Build this rank's stage with the weights of ``reference``."""
    stages = cut_family(family, config, stages=mesh.plan.pp, virtual=virtual)
    paddle.seed(SEED)
    model = build_random(family, config, mesh, wanted=lambda name: stages.holds(mesh.index("pp"), name))
    return Pipeline(model, stages, mesh, seed=1)


def losses(pipeline: Pipeline, given: Sequence[Batch]) -> list[Loss]:
    """What is minimized."""
    return NextToken().losses(pipeline, given, list)


def compare(
    mesh: Mesh, family: Family, config: ModelConfig, virtual: int, count: int, first_record: int = 7
) -> dict[str, Any]:
    """Train one step both ways."""
    given = batches(config, count, ((first_record, 9), (12,)))
    loss, gradients = reference(family, config, given)
    pipeline = build(mesh, family, config, virtual)
    micro_batches = [MicroBatch(batch, 2 * index) for index, batch in enumerate(given)]
    num_supervised = sum(batch.num_supervised for batch in given)
    found, _ = pipeline.backward(micro_batches, losses(pipeline, given), count=num_supervised, scale=SCALE)
    held, parts = parameters(pipeline.model), model_parts(pipeline.model)
    whole = math.sqrt(sum(float((gradient.astype(np.float64) ** 2).sum()) for gradient in gradients.values()))
    errors = {
        name: float(np.abs(parameter.grad.numpy() - cut(gradients[name], parts[name])).max()) / whole
        for name, parameter in held.items()
    }
    return {
        "loss": [found, loss], "errors": errors, "all": sorted(gradients), "cut": str(pipeline.cut),
        "owned": [name for name in held if pipeline.cut.owns(mesh.index("pp"), name)],
    }  # fmt: skip


def evaluate(mesh: Mesh, family: Family, config: ModelConfig, virtual: int) -> dict[str, Any]:
    """Sum the final hidden states of three batches of different lengths, both ways."""
    given = [*batches(config, 2), *batches(config, 1, lengths=((5,),))]
    paddle.seed(SEED)
    whole = family.build_model(config)
    expected = []
    for batch in given:
        inputs = to_inputs(batch, config)
        expected.append([whole(inputs.ids_BS, inputs.positions, inputs.mask).abs().sum().item(), batch.num_supervised])

    def score(hidden_BSH: paddle.Tensor, batch: Batch) -> list[float]:
        return [hidden_BSH.abs().sum().item(), batch.num_supervised]

    pipeline = build(mesh, family, config, virtual)
    found = pipeline.forward(given, score)
    learnt = [name for name, parameter in parameters(pipeline.model).items() if parameter.grad is not None]
    return {"found": found, "expected": expected, "gradients": learnt}


def with_dropout(mesh: Mesh, family: Family, config: ModelConfig) -> dict[str, Any]:
    """Losses of one step with dropout: twice the same micro-batches, then others at the same place."""
    given = batches(config, 4)
    means, norms = [], []
    for positions in ((0, 2, 4, 6), (0, 2, 4, 6), (8, 10, 12, 14)):
        pipeline = build(mesh, family, config, 1)
        micro_batches = [MicroBatch(batch, position) for batch, position in zip(given, positions, strict=True)]
        means.append(pipeline.backward(micro_batches, losses(pipeline, given), count=100)[0])
        norms.append(sum(parameter.grad.square().sum().item() for parameter in parameters(pipeline.model).values()))
    return {"losses": means, "norms": norms}


def with_recompute(mesh: Mesh, family: Family, config: ModelConfig) -> list[float]:
    """Losses and gradient norms with activations kept, and with whole blocks recomputed."""
    given = batches(config, 3)
    micro_batches = [MicroBatch(batch, 2 * index) for index, batch in enumerate(given)]
    found = []
    for again in (False, True):
        pipeline = build(mesh, family, config, 2)
        if again:
            apply_recompute(pipeline.model, "full")
        found.append(pipeline.backward(micro_batches, losses(pipeline, given), count=100)[0])
        found.append(sum(parameter.grad.square().sum().item() for parameter in parameters(pipeline.model).values()))
    return found


def diagnosis(mesh: Mesh, family: Family, config: ModelConfig) -> list[str]:
    """What each stage says of a batch whose numbers are lost in the layer that stands there."""
    (batch,) = batches(config, 1)
    said = [first_non_finite_in_pipeline(build(mesh, family, config, 2), batch)]
    for name in ("embed_tokens.weight", "blocks.2.attention.o_proj.weight", "norm.weight"):
        pipeline = build(mesh, family, config, 2)
        lost = parameters(pipeline.model).get(name)
        if lost is not None:
            lost.set_value(paddle.full_like(lost, float("nan")))
        said.append(first_non_finite_in_pipeline(pipeline, batch))
    return said


def variant(name: str, size: str = "tiny", **changes: Any) -> tuple[Family, ModelConfig]:
    """Return a family and one of its variants, with other numbers."""
    family = load_family(name)
    return family, dataclasses.replace(family.card.sizes[size], **changes)


def two_stages(mesh: Mesh) -> dict[str, Any]:
    """Every tiny variant of every family, and what two stages can show besides."""
    found: dict[str, Any] = {}
    for name in installed().families:
        family = load_family(name)
        for size in (size for size in family.card.sizes if size.startswith("tiny")):
            found[f"{name} {size}"] = compare(mesh, family, family.card.sizes[size], 1, 3)
    return {
        "families": found,
        "five layers": compare(mesh, *variant("llama", "tiny-tied", num_layers=5), 1, 2),
        "interleaved": compare(mesh, *variant("llama", "tiny-tied", num_layers=5), 2, 4),
        "evaluation": evaluate(mesh, *variant("glm", num_layers=5), 2),
        "dropout": with_dropout(mesh, *variant("gpt3", embedding_dropout=0.2, output_dropout=0.2)),
        "diagnosis": diagnosis(mesh, *variant("llama", num_layers=4)),
        "recompute": with_recompute(mesh, *variant("llama")),
    }


def four_stages(mesh: Mesh) -> dict[str, Any]:
    """Interleaved and plain schedules over four stages, with layers that do not divide."""
    return {
        "interleaved": compare(mesh, *variant("chatglm", num_layers=9), 2, 4),
        "five layers": compare(mesh, *variant("qwen", num_layers=5), 1, 6),
        "fewer micro-batches": compare(mesh, *variant("llama", "tiny-tied", num_layers=8), 2, 3),
        "evaluation": evaluate(mesh, *variant("llama", num_layers=8), 2),
    }


def tensor_parallel(mesh: Mesh) -> dict[str, Any]:
    """Two stages of two tensor-parallel ranks each, whose rows do not divide into two."""
    return {
        "llama": compare(mesh, *variant("llama", "tiny-tied"), 2, 4, first_record=6),
        "chatglm2": compare(mesh, *variant("chatglm2"), 1, 3, first_record=6),
        "glm": compare(mesh, *variant("glm"), 1, 3, first_record=6),
        "evaluation": evaluate(mesh, *variant("llama"), 2),
    }


def main(result: str, layout: str) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("llm_run.parallel")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    plan, run = {
        "two": (ParallelPlan(pp=2, virtual_pp=2), two_stages),
        "four": (ParallelPlan(pp=4, virtual_pp=2), four_stages),
        "tensor": (ParallelPlan(pp=2, virtual_pp=2, mp=2, sequence_parallel=True), tensor_parallel),
    }[layout]
    with open_mesh(plan, timeout_s=30) as mesh:
        found = run(mesh)
    Path(result).write_text(json.dumps(found | {"log": lines}))


if __name__ == "__main__":
    main(*sys.argv[1:])
