"""Which rank failed first, and how that is told."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .record import RankRecord

LAST_LINES = 20
"""Lines of a rank's output that are shown."""
KILLED_BY = re.compile(r"Container rank (\d+) status failed .* code (-\d+) log")
"""What Paddle's launcher writes of a rank that a signal has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job ends."""

    status: int
    text: str
    """One line or several, without ``llm-run:``."""
    ranks: tuple[int, ...] = ()
    """Whose failure it is."""
    show: str = ""
    """Name of the log whose last lines say more; empty where ``text`` says all."""
    killed: int | None = None
    """Number, on its machine, of a rank that ended without a word."""

    def told(self, others: Sequence[int], log_dir: Path, starts: Mapping[Path, int]) -> str:
        """Return what is printed.

        Args:
            others: ranks that have failed by now.
            log_dir: folder of ``workerlog.N`` and ``launcher.log``.
            starts: size of each log before this job.
        """
        text = self.text
        if self.killed is not None:
            text += _signal_of(self.killed, log_dir)
        lines = [f"llm-run: {line}" for line in text.splitlines()]
        if self.show:
            path = log_dir / self.show
            lines += _last_lines(path, starts.get(path, 0))
        if rest := sorted(set(others) - set(self.ranks)):
            lines.append(f"llm-run: {_ranks(rest)} ended because of it")
        return "\n".join([*lines, f"llm-run: the output of each rank is in {log_dir}/workerlog.N"])


def first_failure(records: Mapping[int, RankRecord], dead: set[int], stopped: set[int]) -> Failure | None:
    """Return what failed first, as far as the ranks of this machine know; ``None`` while nothing has.

    A rank that ended without a word comes before those that say why they failed, and those before ranks that failed
    because of another one.

    Args:
        records: by rank.
        dead: ranks that no longer run and noted no exit status.
        stopped: ranks that stand still by a signal.
    """
    failed = sorted((record for record in records.values() if record.error), key=lambda record: record.at)
    first_hand = [record for record in failed if not record.blames]
    if dead:
        rank = min(dead)
        text = f"rank {rank} has ended without a word"
        number = records[rank].local_rank
        return Failure(status=1, text=text, ranks=(rank,), show=_log(number), killed=number)
    if first_hand:
        first = first_hand[0]
        alike = tuple(record.rank for record in failed if record.error == first.error)
        text = "\n".join(f"{_ranks(alike)}: {line}" for line in first.error.splitlines())
        show = "" if first.is_told else _log(first.local_rank)
        return Failure(status=first.status or 1, text=text, ranks=alike, show=show)
    if failed:
        return _blamed(failed, records, stopped)
    return None


def never_started(started: int, processes: int, timeout_s: float) -> Failure:
    """Return the failure of a job whose ranks do not all come up."""
    text = f"{started} of {processes} ranks of this machine started within {timeout_s:g} seconds (dist_timeout)"
    return Failure(status=1, text=text, show="launcher.log")


def without_a_word(status: int, logs: Sequence[int]) -> Failure:
    """Return the failure of a job with ranks that ended before they could note anything.

    Args:
        status: of the launcher.
        logs: numbers of those ranks' logs.
    """
    who = f"{_ranks(logs)} of this machine did not start" if logs else "the ranks cannot be started"
    text = f"{who}: the launcher ended with status {status}"
    return Failure(status=1, text=text, show=_log(min(logs)) if logs else "launcher.log")


def _blamed(failed: Sequence[RankRecord], records: Mapping[int, RankRecord], stopped: set[int]) -> Failure:
    """Return the failure where all who speak name another rank: one that has said nothing itself is to blame."""
    silent = sorted({rank for record in failed for rank in record.blames} - {record.rank for record in failed})
    first, ranks = failed[0], tuple(silent[:1])
    text = f"rank {first.rank}: {first.error}"
    for rank in ranks:
        where = "on another machine" if rank not in records else "stopped by a signal" if rank in stopped else "running"
        text = f"rank {rank} ({where}) does not answer\n{text}"
    return Failure(status=first.status or 1, text=text, ranks=ranks or (first.rank,))


def _log(number: int) -> str:
    """Return the name of a rank's log, by its number on its machine."""
    return f"workerlog.{number}"


def _signal_of(number: int, log_dir: Path) -> str:
    """Return by which signal a rank was killed, as far as the launcher has noticed it."""
    found = KILLED_BY.findall((log_dir / "launcher.log").read_text(errors="replace"))
    numbers = [-int(code) for who, code in found if int(who) == number]
    if not numbers:
        return ": killed, or crashed in native code"
    name = signal.Signals(numbers[-1]).name
    hint = ", which the system does when memory runs out" if name == "SIGKILL" else ""
    return f": killed by {name}{hint}"


def _last_lines(path: Path, start: int) -> list[str]:
    try:
        with open(path, "rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
    except OSError:
        return []
    return [f"  {line}" for line in text.splitlines()[-LAST_LINES:]]


def _ranks(ranks: Sequence[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
