"""Run by each rank of ``layouts.py``: train one job after the other, so that a process is started once for all of them.

    PADDLE_TRAINER_ID=0 PADDLE_TRAINERS_NUM=2 PADDLE_MASTER=127.0.0.1:40000 python benchmarks/layout_ranks.py jobs.json

What runs is the task itself. It is given the mesh of the job's options instead of making one, is not let draw its
curve, and is watched: which samples it asks for, and whether what it goes on from is the checkpoint to the bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from layout_defects import broken

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.parallel.degrees import fill_plan
from llm_run.core.parallel.groups import GroupFactory
from llm_run.core.parallel.join import _mesh, open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.registry.manager import load_family
from llm_run.core.run import Run
from llm_run.core.trainer import reporter, tasks
from llm_run.core.trainer.checkpoint import CheckpointStore, read_checkpoint
from llm_run.core.trainer.loop import Trainer

SIZE, RANK = int(os.environ.get("PADDLE_TRAINERS_NUM", "1")), int(os.environ.get("PADDLE_TRAINER_ID", "0"))
TIMEOUT = 600
"""Seconds that a rank may be late: the machine may have other work."""
AGAIN = "again"
"""Where what a run goes on from is saved once more."""


class Meshes:
    """The mesh of each plan, made when it is asked for first; every rank asks for the same ones."""

    def __init__(self) -> None:
        self._known: dict[ParallelPlan, Mesh] = {}
        self._stack = contextlib.ExitStack()
        self._factory: GroupFactory | None = None

    def of(self, plan: ParallelPlan) -> Mesh:
        """Return the mesh of a plan."""
        if SIZE == 1:
            return Mesh()
        if self._factory is None:
            mesh = self._stack.enter_context(open_mesh(plan, timeout_s=TIMEOUT))
            self._factory = GroupFactory(mesh.world, address="127.0.0.1", timeout_s=TIMEOUT)
            self._known[plan] = mesh
        if plan not in self._known:
            self._known[plan] = _mesh(plan, self._factory.world, self._factory)
        return self._known[plan]

    def close(self) -> None:
        """Hang up, once all ranks are here."""
        for mesh in list(self._known.values())[:1]:
            mesh.meet("the end of all")
        self._stack.close()


class Watched:
    """Samples, and the positions of those that were asked for."""

    def __init__(self, source: Any) -> None:
        self._source, self.asked = source, []

    def sample(self, position: int) -> Any:
        self.asked.append(position)
        return self._source.sample(position)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def run_job(job: dict[str, Any], meshes: Meshes) -> None:
    """Train once, and write the positions of this rank's samples."""
    config, _ = resolve(parse(job["words"]))
    family = load_family(config.family)
    model = replace(family.card.sizes["tiny"], num_layers=job["layers"])
    folder = Path(job["folder"])
    with watching(folder, meshes.of(fill_plan(config.launch, SIZE))) as seen, broken(job["defect"]):
        status = tasks.run_pretrain(Run(config=config, family=family, model_config=model))
    assert status == 0, f"{folder.name}: status {status}"
    (folder / f"asked-{RANK}.json").write_text(json.dumps(seen[0].asked))


@contextlib.contextmanager
def watching(folder: Path, mesh: Mesh) -> Iterator[list[Watched]]:
    """Put the mesh under the task, and watch it."""
    opened, begun, seen = tasks.open_pretraining_data, Trainer.__init__, []

    def open_data(run: Run, num_samples: int) -> Any:
        training, evaluation = opened(run, num_samples)
        seen.append(Watched(training))
        return seen[0], evaluation

    def begin(trainer: Trainer, job: Any, workspace: Any, checkpoint: Any) -> None:
        begun(trainer, job, workspace, checkpoint)
        if checkpoint is not None:
            save_again(trainer, folder / AGAIN)

    tasks.open_pretraining_data, Trainer.__init__ = open_data, begin
    tasks.mesh_of = lambda launch: contextlib.nullcontext(mesh)
    try:
        yield seen
    finally:
        tasks.open_pretraining_data, Trainer.__init__ = opened, begun


def save_again(trainer: Trainer, folder: Path) -> None:
    """Save what a run goes on from once more."""
    if trainer.mesh.is_main:
        folder.mkdir()
    trainer.mesh.meet("the second folder")
    CheckpointStore(folder).save(trainer.saver.snapshot(trainer.state), None, trainer.mesh)
    trainer.mesh.meet("the second checkpoint")


def same_again(folder: Path, step: int) -> bool:
    """Whether the ranks went on from exactly what was saved: every tensor, to the bit."""
    first, second = (read_checkpoint(place / f"checkpoint-{step}").reader for place in (folder, folder / AGAIN))
    return first.index.keys() == second.index.keys() and all(
        first.read(name).tobytes() == second.read(name).tobytes() for name in first.index
    )


def main(path: Path) -> None:
    """Run all jobs."""
    reporter.draw_curve = lambda root, title: None
    meshes = Meshes()
    for job in json.loads(path.read_text()):
        print(job["folder"], flush=True)
        run_job(job, meshes)
    meshes.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
