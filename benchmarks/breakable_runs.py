"""Training runs that are there to be broken: the command with its launcher, or ranks without one.

Ranks are forked out of a process that has imported Paddle, so that a run begins at once and can be broken often. They
find each other as ranks do that Slurm or Kubernetes has started. What forks them must not have computed anything.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

LIMIT = 600
"""Seconds that any run may take."""


class Command:
    """A run as a user starts it: the command, its launcher, and its ranks."""

    def __init__(self, words: Sequence[str], size: int) -> None:
        command = [sys.executable, "-m", "llm_run.core", *words, "--nproc_per_node", str(size)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def victims(self) -> list[int]:
        """Return the processes that may be killed: the command's own, and its ranks."""
        return [self._child.pid, *self.ranks()]

    def ranks(self) -> list[int]:
        """Return the processes that train."""
        return leaves(self._child.pid)

    def wait(self, seconds: float) -> list[int] | None:
        """Return the exit status once it is over, as a list; ``None`` where it is not over in time."""
        try:
            return [self._child.wait(seconds)]
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kill what is left."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Ranks:
    """The same without a launcher."""

    def __init__(self, words: Sequence[str], size: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        common = {"PADDLE_TRAINERS_NUM": str(size), "PADDLE_MASTER": f"127.0.0.1:{port}", "LLM_RUN_JOB": str(port)}
        self._pids = [fork(words, common | {"PADDLE_TRAINER_ID": str(rank)}) for rank in range(size)]
        self._statuses: dict[int, int] = {}

    def victims(self) -> list[int]:
        """Return the processes that may be killed."""
        return [pid for pid in self._pids if pid not in self._statuses]

    def ranks(self) -> list[int]:
        """Return the processes that train."""
        return self.victims()

    def wait(self, seconds: float) -> list[int] | None:
        """Return the exit statuses once all are over; ``None`` where they are not over in time."""
        until = time.monotonic() + seconds
        while True:
            for pid in self.victims():
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._statuses[pid] = os.waitstatus_to_exitcode(status)
            if len(self._statuses) == len(self._pids):
                return [self._statuses[pid] for pid in self._pids]
            if time.monotonic() > until:
                return None
            time.sleep(0.02)

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.victims():
            os.kill(pid, signal.SIGKILL)
        self.wait(10)


Run = Command | Ranks


def finish(run: Run) -> list[int]:
    """Wait for a run and return its exit statuses; what does not end is killed."""
    try:
        statuses = run.wait(LIMIT)
        assert statuses is not None, f"a run takes more than {LIMIT} s"
        return statuses
    finally:
        run.end()


def fork(words: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command in a copy of this process, and return its number; its log is in ``output_dir``, the last word."""
    import llm_run.core.trainer.tasks  # noqa: F401  (Paddle, once for all copies)
    from llm_run.core.cli import main

    Path(words[-1]).mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.environ |= environment
        log = os.open(f"{words[-1]}/rank-{environment['PADDLE_TRAINER_ID']}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = main(list(words))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def leaves(pid: int) -> list[int]:
    """Return the descendants of a process that have no children: itself where it has none."""
    try:
        below = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [leaf for child in below for leaf in leaves(child)] or [pid]
