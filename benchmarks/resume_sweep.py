"""Kill training with SIGKILL after every step's save, resume it, and compare the end with an uninterrupted run.

    python benchmarks/resume_sweep.py                  # every k in 1..39 of a 40-step run, about 3 minutes on 2 cores
    python benchmarks/resume_sweep.py --points 3,17    # these only
    python benchmarks/resume_sweep.py --random 20      # one run, killed 20 times at random moments

Compared to the bit: every weight and moment of the last checkpoint, the trainer's state, and loss and gradient norm of
every step, which stand for the data order. The model is the tiny llama, the text Python's own documentation.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

KILL_VARIABLE = "RESUME_SWEEP_KILL_AFTER"


def main() -> int:
    """Run the sweep and print one line a point; 0 where all are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--points", default="", help="steps after whose save the run is killed; default: all")
    parser.add_argument("--random", type=int, default=0, help="kill one run so many times at random moments instead")
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time, one thread each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="resume-sweep-") as folder:
        root = Path(folder)
        write_corpus(root / "corpus")
        assert train(root, "whole", options.steps) == 0
        expected = outcome(root / "whole", options.steps)
        if options.random:
            return kill_at_random(root, options.steps, options.random, expected)
        points = [int(word) for word in options.points.split(",")] if options.points else range(1, options.steps)
        with ThreadPoolExecutor(options.workers) as pool:
            equal = list(pool.map(lambda point: kill_and_resume(root, options.steps, point, expected), points))
    print(f"{sum(equal)} of {len(equal)} resumed runs are equal to the bit")
    return 0 if all(equal) else 1


def kill_and_resume(root: Path, steps: int, point: int, expected: dict[str, Any]) -> bool:
    """Kill a new run after the save of step ``point``, resume it, and say whether it ends as expected."""
    name = f"killed-{point}"
    assert train(root, name, steps, kill_after=point) == -signal.SIGKILL
    assert train(root, name, steps) == 0
    equal = outcome(root / name, steps) == expected
    print(f"killed after step {point}: {'equal' if equal else 'DIFFERENT'}", flush=True)
    return equal


def kill_at_random(root: Path, steps: int, count: int, expected: dict[str, Any]) -> int:
    """Kill one run again and again within the time that a whole run takes, then let it finish."""
    start = time.monotonic()
    assert train(root, "timed", steps) == 0
    longest, kills, lost = time.monotonic() - start, 0, 0
    while kills < count:
        if (root / "random" / "config.json").exists():
            (root / "random").rename(root / f"random-{kills}")
        child = subprocess.Popen(command(root, "random", steps), env=environment(), stderr=subprocess.DEVNULL)
        try:
            child.wait(random.uniform(0.0, longest))
            lost += child.returncode != 0
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            kills += 1
    recovered = train(root, "random", steps) == 0 and outcome(root / "random", steps) == expected
    print(f"killed {kills} times at random moments; runs that failed by themselves: {lost}; "
          f"the end is {'equal to the bit' if recovered else 'DIFFERENT'}")  # fmt: skip
    return 0 if recovered and not lost else 1


def train(root: Path, name: str, steps: int, *, kill_after: int = 0) -> int:
    """Train in a process of its own and return its exit status."""
    done = subprocess.run(
        command(root, name, steps), env=environment(kill_after), stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, -signal.SIGKILL):
        print(done.stderr, file=sys.stderr)
    return done.returncode


def command(root: Path, name: str, steps: int) -> list[str]:
    """Return the command of a run that saves after every step."""
    options = {
        "family": "llama", "task": "pretrain", "model_size": "tiny", "input_dir": root / "corpus", "max_length": 64,
        "max_steps": steps, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "logging_steps": 1,
        "save_steps": 1, "save_total_limit": 2, "learning_rate": 3e-3, "warmup_steps": 5, "weight_decay": 0.1,
        "lr_scheduler_type": "cosine", "output_dir": root / name,
    }  # fmt: skip
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    return [sys.executable, str(Path(__file__).resolve()), "--as-llm-run", *words]


def environment(kill_after: int = 0) -> dict[str, str]:
    """Return the environment of a run: one thread, and the step after whose save it kills itself."""
    return {**os.environ, "OMP_NUM_THREADS": "1", KILL_VARIABLE: str(kill_after)}


def outcome(folder: Path, steps: int) -> dict[str, Any]:
    """Return all that must be equal at the end."""
    from llm_run.core.trainer.checkpoint import read_checkpoint
    from llm_run.core.trainer.metrics import read_metrics

    checkpoint = read_checkpoint(folder / f"checkpoint-{steps}")
    rows = read_metrics(folder)
    return {
        "tensors": {name: checkpoint.reader.read(name).tobytes() for name in checkpoint.reader.index},
        "state": checkpoint.state,
        "steps": [(row["step"], row["loss"], row["grad_norm"], row["samples_seen"]) for row in rows],
        "weights": (folder / "model.safetensors").read_bytes(),
    }


def write_corpus(folder: Path) -> None:
    """Write Python's documentation as byte tokens, in the seed's legacy layout."""
    from pydoc_data.topics import topics

    folder.mkdir()
    documents = [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in topics.values()]
    lengths = np.array([len(document) for document in documents], dtype=np.int32)
    np.save(folder / "topics_ids.npy", np.concatenate(documents))
    np.savez(folder / "topics_idx.npz", lens=lengths, docs=np.arange(len(documents) + 1, dtype=np.int64))


def as_llm_run(words: list[str]) -> int:
    """Be ``llm-run``, with a kill -9 of itself after the save of one step."""
    from llm_run.core.cli import main as llm_run
    from llm_run.core.trainer.checkpoint import CheckpointStore

    plain = CheckpointStore.save

    def save(store: CheckpointStore, snapshot: Any, *arguments: Any, **named: Any) -> Path:
        path = plain(store, snapshot, *arguments, **named)
        if snapshot.state.step == int(os.environ[KILL_VARIABLE]):
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    CheckpointStore.save = save  # type: ignore[method-assign]
    return llm_run(words)


if __name__ == "__main__":
    sys.exit(as_llm_run(sys.argv[2:]) if sys.argv[1:2] == ["--as-llm-run"] else main())
