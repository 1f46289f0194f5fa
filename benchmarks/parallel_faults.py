"""Break training on two processes, under layouts that share matrices, layers or samples, and see how it ends.

    python benchmarks/parallel_faults.py                        # all, under tp2 and pp2
    python benchmarks/parallel_faults.py --layouts tp2 --kills 50 --signals 10

- kill: SIGKILL to one rank at random moments, the same command again each time, until the run comes to its end; then
  another run, until there were so many kills. Every end is that of an undisturbed run, every weight and moment to the
  bit. A few of the kills are of runs with a launcher, which may be what is killed (``--launched``).
- signal: SIGTERM to one rank at a random moment: all ranks save the same step and end with 143.
- stop: SIGSTOP of one rank: the command ends with an error after ``--dist_timeout``, and not later than a minute.

A gradient that is not finite on one rank, and a disk that is full on one, are tests:
``tests/core/parallel/data/test_trainer.py``.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from breakable_runs import LIMIT, Command, Ranks, Run, finish
from layouts import LAYOUTS, write_corpus

STEPS, BATCH = 30, 8
DIST_TIMEOUT = 20
"""Seconds that a rank may be late, where one stands still."""
PATIENCE = 300
"""The same elsewhere: the machine may have other work."""
Start = Callable[..., Run]


def main() -> int:
    """Break what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", default="tp2,pp2", help="of two processes, named as in layouts.py")
    parser.add_argument("--kills", type=int, default=10, help="of ranks without a launcher")
    parser.add_argument("--launched", type=int, default=2, help="kills of runs with a launcher")
    parser.add_argument("--signals", type=int, default=10)
    parser.add_argument("--stops", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    random.seed(options.seed)
    good, start = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        root = Path(folder)
        write_corpus(root / "corpus")
        for layout in options.layouts.split(","):
            good.append(not any(finish(begin(Ranks, root, layout, "whole"))))
            good += [
                kill(Ranks, root, layout, options.kills),
                kill(Command, root, layout, options.launched),
                terminate(root, layout, options.signals),
                *(stop(root, layout, f"stopped {number}") for number in range(options.stops)),
            ]
    print(f"{sum(good)} of {len(good)} ended as they must, {time.monotonic() - start:.0f} s")
    return 0 if all(good) else 1


def begin(start: Start, root: Path, layout: str, name: str, *more: str) -> Run:
    """Start a run, or go on with the one in this folder."""
    processes, shares, options = LAYOUTS[layout]
    words = (
        f"--task pretrain --family llama --model_size tiny --max_length 32 --max_steps {STEPS} --logging_steps 1 "
        f"--save_steps 1 --save_total_limit 2 --learning_rate 1e-3 --per_device_train_batch_size 2 --disable_tqdm true "
        f"--gradient_accumulation_steps {BATCH // shares // 2} --save_rehearsal false --split 100,0,0 "
        f"--dist_timeout {PATIENCE} {options}"
    )
    paths = ["--input_dir", str(root / "corpus"), "--output_dir", str(root / f"{layout} {name}")]
    return start([*words.split(), *more, *paths], processes)


def kill(start: Start, root: Path, layout: str, count: int) -> bool:
    """Kill processes of one run after the other until there were enough; each comes to its end at last."""
    steps: list[int] = []
    ends: list[bool] = []
    while len(steps) < count:
        name = f"killed {start.__name__} {len(ends)}"
        statuses = None
        while statuses is None and len(steps) < count:
            run = begin(start, root, layout, name)
            statuses = wait_for_a_moment(root / f"{layout} {name}", run)
            if statuses is None:
                os.kill(random.choice(run.victims()), signal.SIGKILL)
                steps.append(last_step(root / f"{layout} {name}"))
                finish(run)
                wait_until_gone(root / f"{layout} {name}")
        statuses = statuses or finish(begin(start, root, layout, name))
        ends.append(ended_alike(root, layout, name, statuses))
    if count:
        said = f"{sum(ends)} of {len(ends)} runs end equal to the bit"
        print(f"{layout}: {start.__name__} killed {len(steps)} times, after steps {steps}: {said}", flush=True)
    return all(ends)


def wait_for_a_moment(folder: Path, run: Run) -> list[int] | None:
    """Wait for up to ten more checkpoints and a little longer; return the exit statuses of a run that ends before."""
    goal = last_step(folder) + random.randint(0, 10)
    statuses = run.wait(0)
    while last_step(folder) < goal and statuses is None:
        statuses = run.wait(0.02)
    return statuses or run.wait(random.uniform(0.0, 1.0))


def ended_alike(root: Path, layout: str, name: str, statuses: list[int]) -> bool:
    """Whether a run has come to its end, and that is the end of an undisturbed one; says what is not so."""
    if any(statuses):
        logs = sorted((root / f"{layout} {name}").glob("*.log"))
        print(f"{layout}: {name} fails with {statuses}: {[log.read_text()[-2000:] for log in logs]}", flush=True)
        return False
    expected, found = (tensors(root, layout, each) for each in ("whole", name))
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        print(f"{layout}: {name} differs in {len(wrong)} of {len(expected)} tensors: {wrong[:5]}", flush=True)
    return not wrong


def last_step(folder: Path) -> int:
    """Return the step of the newest checkpoint."""
    steps = [int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()]
    return max(steps, default=0)


def terminate(root: Path, layout: str, count: int) -> bool:
    """Ask one rank to stop at random moments."""
    ended = []
    for index in range(count):
        name = f"asked {index}"
        run = begin(Ranks, root, layout, name, "--save_strategy", "no")
        wait_for_steps(root / f"{layout} {name}", random.randint(1, STEPS // 2), run)
        time.sleep(random.uniform(0.0, 0.3))
        os.kill(random.choice(run.ranks()), signal.SIGTERM)
        statuses = finish(run)
        saved = [path.name for path in (root / f"{layout} {name}").glob("checkpoint-*")]
        ended.append(set(statuses) == {143} and len(saved) == 1)
        print(f"{layout}: SIGTERM to one rank: statuses {statuses}, saved {', '.join(saved) or 'NOTHING'}", flush=True)
    return all(ended)


def stop(root: Path, layout: str, name: str) -> bool:
    """Let one rank stand still for ever."""
    more = ["--max_steps", "100000", "--save_strategy", "no", "--dist_timeout", str(DIST_TIMEOUT)]
    run = begin(Command, root, layout, name, *more)
    wait_for_steps(root / f"{layout} {name}", 3, run)
    victim = run.ranks()[-1]
    os.kill(victim, signal.SIGSTOP)
    start = time.monotonic()
    statuses = finish(run)
    took = time.monotonic() - start
    gone = not Path(f"/proc/{victim}").exists()
    print(f"{layout}: SIGSTOP of one rank: status {statuses} after {took:.0f} s, its process is "
          f"{'over' if gone else 'LEFT OVER'}", flush=True)  # fmt: skip
    if not gone:
        os.kill(victim, signal.SIGKILL)
    return statuses == [1] and took < DIST_TIMEOUT + 60 and gone


def wait_for_steps(folder: Path, count: int, run: Run) -> None:
    """Wait until so many steps are in the metrics."""
    path, until = folder / "metrics.jsonl", time.monotonic() + LIMIT
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert run.wait(0.05) is None and time.monotonic() < until, "the run is over before it was disturbed"


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
