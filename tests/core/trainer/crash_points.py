"""Run by test_checkpoint.py in a process without Paddle: saves a checkpoint in forked children that die at the n-th
file-system operation, and prints what is left after each as JSON lines."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.trainer.checkpoint import CheckpointStore, Snapshot, TrainerState
from llm_run.core.trainer.storage import Storage

DEAD = 9
OPERATIONS = ("make_directory", "write_chunk", "sync_file", "sync_directory", "rename", "remove_tree")


class DyingStorage(Storage):
    """Ends the process, without any clean-up, at the n-th operation: before it, half-way or after it."""

    def __init__(self, number: int, moment: str) -> None:
        self.left, self.moment = number, moment


def _dying(name: str) -> Callable[..., Any]:
    plain = getattr(Storage, name)

    def operation(self: DyingStorage, *arguments: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            if self.moment == "half" and name == "write_chunk":
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            elif self.moment == "half" and name == "remove_tree":
                next(path for path in arguments[0].rglob("*") if path.is_file()).unlink()
            elif self.moment == "after":
                plain(self, *arguments)
            os._exit(DEAD)
        return plain(self, *arguments)

    return operation


for _name in OPERATIONS:
    setattr(DyingStorage, _name, _dying(_name))


def snapshot(step: int) -> Snapshot:
    arrays = {f"w{i}": np.random.default_rng([step, i]).normal(size=(50, 7)).astype(np.float32) for i in range(3)}
    moments = {f"exp_avg.{name}": array * 0.1 for name, array in arrays.items()}
    state = TrainerState(step=step, samples=4 * step, updates=step)
    return Snapshot(state=state, identity={"seed": 1}, model=arrays, optimizer=moments, about={})


def survivor(root: Path) -> dict[str, Any]:
    """What a run that starts afterwards finds."""
    store = CheckpointStore(root)
    leftovers = sum(path.name.startswith(".") for path in root.iterdir())
    store.clean()
    found = store.newest()
    assert found is not None
    expected = snapshot(found.state.step)
    same = all(
        array.tobytes() == found.tensors_of(part)[name].tobytes()
        for part, arrays in (("model", expected.model), ("optimizer", expected.optimizer))
        for name, array in arrays.items()
    )
    names = sorted(path.name for path in root.iterdir())
    return {"step": found.state.step, "same": same, "names": names, "leftovers": leftovers}


def main(folder: Path) -> None:
    for moment in ("before", "half", "after"):
        number, died = 0, True
        while died:
            number += 1
            root = folder / f"{moment}-{number}"
            root.mkdir()
            for step in (1, 2):
                CheckpointStore(root).save(snapshot(step))
            child = os.fork()
            if child == 0:
                CheckpointStore(root, DyingStorage(number, moment)).save(snapshot(3), limit=2)
                os._exit(0)
            died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DEAD
            print(json.dumps({"moment": moment, "number": number, "died": died, **survivor(root)}))
            shutil.rmtree(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
