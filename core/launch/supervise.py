"""Watch over the ranks that were started here: show what rank 0 says, pass signals on, end the job when one fails."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from . import verdict
from .processes import children, is_running, is_stopped, new_session, remove_environment_copies
from .record import STOPPED, RankRecord, read_record
from .verdict import Failure

POLL = 0.1
"""Seconds between two looks."""
MANNERS = 1.5
"""Seconds that ranks have to end by themselves after the first has failed."""
LAUNCHER_END = 2.5
"""Seconds that the launcher has to end after its ranks."""


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    log_dir: Path,
    *,
    processes: int,
    timeout_s: float,
    shows: bool = True,
) -> int:
    """Run the launcher and its ranks to their end, and return the exit status of the run.

    Args:
        command: of the launcher.
        environment: for it and the ranks.
        log_dir: where ``workerlog.N`` and the ranks' records go.
        processes: ranks of this machine.
        timeout_s: seconds in which all of them must have started.
        shows: what the first of them says is printed here.

    Returns:
        0 where all ranks say so; 143 or 130 where a signal stopped the run; the status of the rank that failed first
        otherwise. What failed, and that rank's last words, are on standard error.
    """
    for path in log_dir.glob("rank.*.json"):
        path.unlink()
    with contextlib.ExitStack() as stack, open(log_dir / "launcher.log", "wb") as output:
        launcher = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            preexec_fn=new_session,
        )  # fmt: skip
        job = Job(launcher, log_dir, processes=processes, timeout_s=timeout_s, shows=shows)
        stack.callback(remove_environment_copies, log_dir)
        stack.callback(job.end)
        stack.enter_context(job.passing_signals_on())
        return job.watch()


class Job:
    """The launcher, and the ranks under it."""

    def __init__(
        self, launcher: subprocess.Popen[bytes], log_dir: Path, *, processes: int, timeout_s: float, shows: bool
    ) -> None:
        self.launcher = launcher
        self.log_dir = log_dir
        self.processes = processes
        self.deadline = time.monotonic() + timeout_s
        self.timeout_s = timeout_s
        self.signals: list[int] = []
        self._shows = shows
        self._passed_on = 0
        self._starts = {path: path.stat().st_size for path in log_dir.glob("workerlog.*")}
        self._shown: IO[bytes] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def watch(self) -> int:
        """Wait for the end and return the exit status."""
        while True:
            said = self._new_output()
            records = self.records()
            failure = self._failure(records)
            if failure is not None:
                return self._fail(failure)
            self._show(said)
            status = self.launcher.poll()
            if status is not None:
                return self._conclude(status)
            self._pass_signals()
            if len(records) < self.processes and time.monotonic() > self.deadline:
                return self._fail(verdict.never_started(len(records), self.processes, self.timeout_s))
            time.sleep(POLL)

    def records(self) -> dict[int, RankRecord]:
        """Return what the ranks have noted, by rank."""
        found = (read_record(path) for path in self.log_dir.glob("rank.*.json"))
        return {record.rank: record for record in found if record is not None}

    @contextlib.contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """Collect SIGTERM and SIGINT for the ranks while entered."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """Make sure that nothing that was started here still runs."""
        if self._shown is not None:
            self._shown.close()
        ranks = {record.pid for record in self.records().values() if is_running(record.pid)}
        for pid in ranks | set(children(self.launcher.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # each rank leads a group: what it has started ends with it
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.launcher.wait(LAUNCHER_END)
        if self.launcher.poll() is None:
            _kill(self.launcher.pid, signal.SIGKILL)
            self.launcher.wait()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def _pass_signals(self) -> None:
        """Tell every rank, each of which finishes its step and saves; the launcher would kill them after 30 seconds."""
        while self._passed_on < len(self.signals):
            number = self.signals[self._passed_on]
            self._passed_on += 1
            living = [record.pid for record in self.records().values() if is_running(record.pid)]
            for pid in living:
                _kill(pid, number)
            if len(living) < self.processes:  # not all are up yet: there is nothing to save
                _kill(self.launcher.pid, signal.SIGTERM)

    def _failure(self, records: Mapping[int, RankRecord]) -> Failure | None:
        dead = {rank for rank, record in records.items() if record.status is None and not is_running(record.pid)}
        if self.signals and (dead or not any(record.error for record in records.values())):
            return None  # a rank that cannot save yet dies of the signal, and the others miss it: that is no failure
        if dead and len(records) < self.processes:
            return None  # the launcher ends the others where one does not come up; it knows which one that was
        stopped = {rank for rank, record in records.items() if is_stopped(record.pid)}
        return verdict.first_failure(records, dead, stopped)

    def _fail(self, failure: Failure) -> int:
        """Let the others end, and say what happened, the failed rank's words first."""
        give_up = time.monotonic() + MANNERS
        while time.monotonic() < give_up and any(is_running(record.pid) for record in self.records().values()):
            time.sleep(POLL)
        others = [record.rank for record in self.records().values() if record.error]
        self.end()
        print(failure.told(others, self.log_dir, self._starts), file=sys.stderr, flush=True)
        return failure.status

    def _conclude(self, status: int) -> int:
        """Return the exit status of a job whose launcher has ended by itself."""
        records = self.records()
        failure = self._failure(records)
        if failure is not None:
            return self._fail(failure)
        self._show(self._new_output())
        if len(records) == self.processes and not any(record.status != 0 for record in records.values()):
            return 0  # a server has done all that it should when a signal ends it
        stops = [record.status for record in records.values() if record.status in STOPPED]
        if stops or self.signals:
            return max(stops, default=128 + self.signals[0] if self.signals else 0)
        statuses = [record.status for record in records.values() if record.status]
        if statuses:
            return max(statuses)
        if status != 0:
            logs = {int(path.suffix[1:]) for path in self.log_dir.glob("workerlog.*")}
            mute = logs - {record.local_rank for record in records.values()}
            return self._fail(verdict.without_a_word(status, sorted(mute)))
        return 0

    def _new_output(self) -> bytes:
        """Return what the first rank here has written since the last look."""
        path = self.log_dir / "workerlog.0"
        if self._shown is None:
            if not path.exists():
                return b""
            self._shown = open(path, "rb")
            self._shown.seek(self._starts.get(path, 0))
        return self._shown.read()

    def _show(self, said: bytes) -> None:
        if said and self._shows:
            sys.stderr.write(self._decoder.decode(said))
            sys.stderr.flush()


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
