"""Run by two ranks: the whole trainer, under layouts that follow each other, and through faults of one rank."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.config.groups import ConvertOptions, DataOptions, DecodingOptions, LaunchOptions, ModelOptions
from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part, matrix_sizes
from llm_run.core.parallel.pipeline.passes import Pipeline
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sharding import hold
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.manager import load_family
from llm_run.core.run import Run, RunConfig
from llm_run.core.trainer.checkpoint import CheckpointStore, read_checkpoint
from llm_run.core.trainer.evaluate import evaluate
from llm_run.core.trainer.identity import identity
from llm_run.core.trainer.job import Job
from llm_run.core.trainer.loop import Trainer, train
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.resume import find_checkpoint
from llm_run.core.trainer.storage import Storage
from llm_run.core.trainer.workspace import Workspace

PLANS = {
    "dp2": ParallelPlan(dp=2),
    "stage1": ParallelPlan(sharding=2, sharding_stage=1),
    "stage2": ParallelPlan(sharding=2, sharding_stage=2),
    "stage3": ParallelPlan(sharding=2, sharding_stage=3),
    "tp2": ParallelPlan(mp=2, sequence_parallel=True),
    "pp2": ParallelPlan(pp=2, virtual_pp=2),
    "sep2": ParallelPlan(sep=2),
}
CHAIN = ("one", "stage3", "tp2", "dp2", "pp2", "stage1", "sep2", "stage2", "pp2", "one")
"""Layouts of step 1, 2, ...: each but the first goes on from the checkpoint of the one before."""
FAMILY = load_family("llama")
CONFIG = FAMILY.card.sizes["tiny-tied"]


class Rows:
    """Rows of random length, which note the positions that are asked for and do something at one of them."""

    fingerprint = "rows"

    def __init__(self, at: int = -1, action: Callable[[], None] = lambda: None, epoch_size: int = 64) -> None:
        self.at, self.action, self.epoch_size = at, action, epoch_size
        self.asked: list[int] = []

    def sample(self, position: int) -> Sample:
        self.asked.append(position)
        if position == self.at:
            self.action()
        generator = np.random.default_rng(position % self.epoch_size)
        first, length = generator.integers(64), int(generator.integers(6, 17))
        tokens = (first + np.arange(length + 1)) % 64
        labels = tokens[1:].copy()
        labels[:3] = IGNORED
        return Sample(tokens[:-1], labels, np.ones(length, dtype=np.int32), np.zeros(length, dtype=bool))


def job_of(mesh: Mesh, folder: Path, source: Rows, **options: Any) -> Job:
    """Put a job together whose global batch is 4 rows in every layout."""
    defaults = {
        "output_dir": str(folder), "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4 // mesh.data_world, "max_steps": len(CHAIN), "logging_steps": 1,
        "save_steps": 1, "learning_rate": 3e-3, "save_rehearsal": False, "disable_tqdm": True,
    }  # fmt: skip
    config = RunConfig(
        task="pretrain", family="llama", model=ModelOptions(model_size="tiny-tied"), data=DataOptions(),
        training=TrainingOptions(**(defaults | options)), decoding=DecodingOptions(), convert=ConvertOptions(),
        launch=LaunchOptions(), origins={},
    )  # fmt: skip
    run = Run(config=config, family=FAMILY, model_config=CONFIG)
    seed_all(config.training.seed)
    part = build_part(FAMILY, CONFIG, mesh, None)
    ours = identity(run, data=source.fingerprint, weights="random", data_world=mesh.data_world)
    return Job(
        run=run, model=part.model, cut=part.cut, training=source, evaluation=None, tokenizer=None, template=None,
        identity=ours, mesh=mesh,
    )  # fmt: skip


def trained(job: Job, storage: Storage | None = None) -> int:
    """Train in the output directory, going on from the newest checkpoint, as the tasks do."""
    with Workspace(Path(job.options.output_dir or ""), storage, is_main=job.mesh.is_main) as workspace:
        job.mesh.meet("the start")
        status = train(job, workspace, find_checkpoint(workspace, job.options, job.identity, job.mesh))
        job.mesh.meet("the end")
        return status


def one_step(job: Job) -> list[int]:
    """Go on by one step, save, and return the positions of the rows that it took."""
    with Workspace(Path(job.options.output_dir or ""), is_main=job.mesh.is_main) as workspace:
        checkpoint = find_checkpoint(workspace, job.options, job.identity, job.mesh)
        with Trainer(job, workspace, checkpoint) as trainer:
            trainer.step()
            trainer.save_if_due()
        job.mesh.meet("the end")
    return job.training.asked


def saved_again(job: Job, folder: Path) -> bool:
    """Whether a rank that goes on from a checkpoint has it to the bit: it is saved once more, and compared."""
    mesh, root = job.mesh, Path(job.options.output_dir or "")
    with Workspace(root, is_main=mesh.is_main) as workspace:
        checkpoint = find_checkpoint(workspace, job.options, job.identity, mesh)
        trainer = Trainer(job, workspace, checkpoint)
        if mesh.is_main:
            folder.mkdir()
        mesh.meet("the second folder")
        again = CheckpointStore(folder).save(trainer.saver.snapshot(trainer.state), None, mesh)
        mesh.meet("the second checkpoint")
    assert checkpoint is not None
    return tensors(again) == tensors(checkpoint.directory)


def tensors(directory: Path) -> dict[str, bytes]:
    """Return the bytes of all tensors in a checkpoint."""
    reader = read_checkpoint(directory).reader
    return {name: reader.read(name).tobytes() for name in reader.index}


def chain(meshes: dict[str, Mesh], folder: Path) -> dict[str, Any]:
    """Make one step under each layout, each from the last one's checkpoint; say what was read and what came back."""
    found: dict[str, Any] = {"asked": [], "same": []}
    for step, name in enumerate(CHAIN, start=1):
        mesh, source = meshes[name], Rows()
        if name == "one" and not meshes["dp2"].is_main:
            found["asked"].append([])
        else:
            if step > 1:
                job = job_of(mesh, folder, Rows(), lr_scheduler_type="constant")
                found["same"].append(saved_again(job, folder.with_name(f"again-{step}")))
            job = job_of(mesh, folder, source, max_steps=len(CHAIN), lr_scheduler_type="constant")
            found["asked"].append(one_step(job))
        meshes["dp2"].meet(f"the end of step {step}")
    return found


def poisoned(mesh: Mesh, folder: Path) -> dict[str, Any]:
    """Train with a gradient of rank 1 that is not finite in step 2 only."""
    found: dict[str, Any] = {}
    source = Rows()
    job = job_of(mesh, folder, source, max_steps=3)

    def poison(gradient: Any) -> Any:
        return gradient * float("nan") if 4 <= min(source.asked[-2:]) < 8 else gradient

    if mesh.rank == 1:
        job.model.blocks[3].feed_forward.up_proj.weight.register_hook(poison)
    found["status"] = trained(job)
    states = [read_checkpoint(folder / f"checkpoint-{step}").state for step in (1, 2, 3)]
    found["updates"] = [state.updates for state in states]
    first, second, third = (tensors(folder / f"checkpoint-{step}") for step in (1, 2, 3))
    found |= {"unchanged": first == second, "goes on": second != third}
    return found


def evaluations(meshes: dict[str, Mesh]) -> dict[str, Any]:
    """Evaluate eleven rows under each layout: in the last round some rank has none left.

    Returns the sums by layout, and how much of the parameters this rank holds in the end: what it updates, and what
    the model itself has.
    """
    sums, held = {}, {}
    for name, mesh in meshes.items():
        seed_all(1)
        part = build_part(FAMILY, CONFIG, mesh, None)
        model, pipeline = part.model, Pipeline(part.model, part.cut, mesh, seed=1) if part.cut else None
        total = sum(size for size, _ in matrix_sizes(part, mesh).values())
        holding = hold(model, mesh, model_parts(model))
        score = evaluate(model, Rows(epoch_size=11), batch_size=2, pad_id=0, mesh=mesh, pipeline=pipeline)
        sums[name] = astuple(score)
        holding.rest()
        matrices = [parameter for parameter in model.parameters() if len(parameter.shape) >= 2]
        updated = sum(int(tensor.size) for tensor in holding.tensors.values() if tensor.ndim >= 2)
        kept = sum(int(parameter.size) for parameter in matrices if parameter._is_initialized())
        held[name] = [updated / total, kept / total]
    return {"evaluations": sums, "held": held}


class Full(Storage):
    """Has no room once."""

    def __init__(self, *, is_full: bool) -> None:
        self.is_full = is_full

    def write_chunk(self, descriptor: int, chunk: memoryview) -> None:
        if self.is_full:
            self.is_full = False
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_chunk(descriptor, chunk)


def main(result: Path) -> None:
    """Go through all of it."""
    folder = result.parent
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("llm_run.trainer").addHandler(handler)
    first, *others = PLANS.items()
    with open_mesh(first[1], timeout_s=60) as mesh:
        factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=60)
        meshes = {first[0]: mesh} | {name: _mesh(plan, mesh.world, factory) for name, plan in others}
        meshes["one"] = Mesh()
        found: dict[str, Any] = {
            "chain": chain(meshes, folder / "chain"),
            "poison": {
                name: poisoned(meshes[name], folder / f"poison {name}") for name in ("stage2", "tp2", "pp2", "sep2")
            },
        }
        found["skipped"] = [text for text in messages if "is skipped" in text]
        found |= evaluations(meshes)
        messages.clear()
        found["full"] = trained(job_of(mesh, folder / "full", Rows(), max_steps=3), Full(is_full=mesh.rank == 1))
        found["said"] = [text for text in messages if "cannot be saved" in text]
        stop = Rows(at=6, action=lambda: os.kill(os.getpid(), signal.SIGTERM))  # a row of rank 1
        found["stopped"] = trained(job_of(mesh, folder / "stopped", stop, save_strategy="no"))
        if mesh.is_main:
            job = job_of(meshes["one"], folder / "plain", Rows(), lr_scheduler_type="constant")
            found["plain"] = trained(job)
        found["loose"] = trained(job_of(meshes["stage3"], folder / "loose", Rows(), max_steps=1, save_strategy="no"))
        for name in ("tp2", "pp2"):
            found[f"merged {name}"] = trained(job_of(meshes[name], folder / f"merged {name}", Rows(), max_steps=1))
        mesh.meet("the end of all")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
