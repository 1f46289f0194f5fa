"""Break training on two processes, under layouts that share matrices, layers or samples, and see how it ends.

    python benchmarks/parallel_faults.py                        # all, under tp2 and pp2
    python benchmarks/parallel_faults.py --layouts tp2 --kills 20 --signals 10

- kill: SIGKILL to one rank or to the launcher at random moments, the same command again each time: the end is that of
  an undisturbed run, every weight and moment to the bit.
- signal: SIGTERM to one rank at a random moment: all ranks save the same step and the command ends with 143.
- stop: SIGSTOP of one rank: the command ends with an error after ``--dist_timeout``, and not later than a minute.

A gradient that is not finite on one rank is a test: ``tests/core/parallel/data/test_trainer.py``.
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
from pathlib import Path

import numpy as np
from layouts import LAYOUTS, write_corpus

STEPS, BATCH = 30, 8
DIST_TIMEOUT = 20
"""Seconds that a rank may be late."""
LIMIT = 600
"""Seconds that any run may take."""


def main() -> int:
    """Break what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", default="tp2,pp2", help="of two processes, named as in layouts.py")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--signals", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    random.seed(options.seed)
    good = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        root = Path(folder)
        write_corpus(root / "corpus")
        for layout in options.layouts.split(","):
            start = time.monotonic()
            assert finish(launch(root, layout, "whole")) == 0
            usual = time.monotonic() - start
            good += [
                kill(root, layout, options.kills, usual),
                terminate(root, layout, options.signals),
                stop(root, layout),
            ]
    print(f"{sum(good)} of {len(good)} ended as they must")
    return 0 if all(good) else 1


def kill(root: Path, layout: str, count: int, usual: float) -> bool:
    """Kill one process again and again within the time that a whole run takes, then let it finish."""
    kills = 0
    while kills < count:
        child = launch(root, layout, "killed")
        try:
            child.wait(random.uniform(0.3, 1.0) * usual)
        except subprocess.TimeoutExpired:
            victim = random.choice([child.pid, *ranks_of(child.pid)])
            os.kill(victim, signal.SIGKILL)
            kills += 1
        else:
            break  # it has come to its end between two kills
        if victim == child.pid:
            time.sleep(1.0)
        finish(child)
        wait_until_gone(root / f"{layout} killed")
    status = finish(launch(root, layout, "killed"))
    same = status == 0 and tensors(root, layout, "killed") == tensors(root, layout, "whole")
    print(f"{layout}: killed {kills} times: the end is {'equal to the bit' if same else 'DIFFERENT'}", flush=True)
    return same


def terminate(root: Path, layout: str, count: int) -> bool:
    """Ask one rank to stop at random moments."""
    ended = []
    for index in range(count):
        name = f"asked {index}"
        child = launch(root, layout, name, "--save_strategy", "no")
        wait_for_steps(root / f"{layout} {name}", random.randint(1, STEPS // 2), child)
        time.sleep(random.uniform(0.0, 0.3))
        os.kill(random.choice(ranks_of(child.pid)), signal.SIGTERM)
        status = finish(child)
        saved = [path.name for path in (root / f"{layout} {name}").glob("checkpoint-*")]
        ended.append(status == 143 and len(saved) == 1)
        print(f"{layout}: SIGTERM to one rank: status {status}, saved {', '.join(saved) or 'NOTHING'}", flush=True)
    return all(ended)


def stop(root: Path, layout: str) -> bool:
    """Let one rank stand still for ever."""
    child = launch(root, layout, "stopped", "--max_steps", "100000", "--save_strategy", "no")
    wait_for_steps(root / f"{layout} stopped", 3, child)
    victim = ranks_of(child.pid)[-1]
    os.kill(victim, signal.SIGSTOP)
    start = time.monotonic()
    status = finish(child)
    took = time.monotonic() - start
    gone = not Path(f"/proc/{victim}").exists()
    print(f"{layout}: SIGSTOP of one rank: status {status} after {took:.0f} s, its process is "
          f"{'over' if gone else 'LEFT OVER'}", flush=True)  # fmt: skip
    if not gone:
        os.kill(victim, signal.SIGKILL)
    return status == 1 and took < DIST_TIMEOUT + 60 and gone


def launch(root: Path, layout: str, name: str, *more: str) -> subprocess.Popen[bytes]:
    """Start the command."""
    processes, shares, options = LAYOUTS[layout]
    words = (
        f"--task pretrain --family llama --model_size tiny --max_length 32 --max_steps {STEPS} --logging_steps 1 "
        f"--save_steps 1 --save_total_limit 2 --learning_rate 1e-3 --per_device_train_batch_size 2 --disable_tqdm true "
        f"--gradient_accumulation_steps {BATCH // shares // 2} --save_rehearsal false --split 100,0,0 "
        f"--nproc_per_node {processes} --dist_timeout {DIST_TIMEOUT} {options}"
    )
    command = [sys.executable, "-m", "llm_run.core", *words.split(), *more]
    command += ["--input_dir", str(root / "corpus"), "--output_dir", str(root / f"{layout} {name}")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(child: subprocess.Popen[bytes]) -> int:
    """Wait for the command and return its exit status."""
    try:
        return child.wait(LIMIT)
    finally:
        if child.poll() is None:
            child.kill()


def ranks_of(pid: int) -> list[int]:
    """Return the processes of a command that train: those of its descendants that have no children."""
    below = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [rank for child in below for rank in ranks_of(child)] or [pid]


def wait_for_steps(folder: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until so many steps are in the metrics."""
    path, until = folder / "metrics.jsonl", time.monotonic() + LIMIT
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert child.poll() is None and time.monotonic() < until, "the run is over before it was disturbed"
        time.sleep(0.05)


def wait_until_gone(folder: Path) -> None:
    """Wait until no process has the output folder in its command line: ranks outlive a killed launcher a little."""
    until = time.monotonic() + 2 * DIST_TIMEOUT
    while time.monotonic() < until:
        if not any(str(folder).encode() in command for command in commands()):
            return
        time.sleep(0.2)
    raise AssertionError(f"processes of {folder} do not end")


def commands() -> list[bytes]:
    """Return the command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found


def tensors(root: Path, layout: str, name: str) -> dict[str, bytes]:
    """Return the bytes of all tensors of the last checkpoint."""
    from llm_run.core.trainer.checkpoint import read_checkpoint

    reader = read_checkpoint(root / f"{layout} {name}" / f"checkpoint-{STEPS}").reader
    return {each: np.ascontiguousarray(reader.read(each)).tobytes() for each in reader.index}


if __name__ == "__main__":
    sys.exit(main())
