"""What a rank leaves behind for the process that launched it: how it ended, before the other ranks can notice."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import DistributedError, LlmRunError

STOPPED = (130, 143)
"""Exit statuses after a signal, once everything is saved."""
FOLDER = "LLM_RUN_RANKS"
"""Variable with the folder of the records; not set where somebody else started the ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRecord:
    """How one rank stands."""

    rank: int
    local_rank: int
    """Among those of its machine; the number of its log."""
    pid: int
    status: int | None = None
    """Exit status; ``None`` while it runs, or where it was killed."""
    error: str = ""
    """Why it failed; several lines where several things are wrong."""
    is_told: bool = True
    """``error`` says all that the user needs; otherwise the rank's output has a traceback."""
    blames: tuple[int, ...] = ()
    """Other ranks that it failed because of."""
    at: float = 0.0
    """Seconds since 1970."""


def note_start() -> None:
    """Say that this rank lives."""
    _write(_own())


def note_end(status: int) -> None:
    """Say with which exit status this rank ends."""
    _write(replace(_own(), status=status))


def note_failure(error: BaseException) -> None:
    """Say why this rank fails; of several errors the first one stays."""
    if isinstance(error, GeneratorExit | SystemExit | KeyboardInterrupt) or FOLDER not in os.environ:
        return
    own = _own()
    found = read_record(_path(own))
    if found is not None and found.error:
        return
    is_ours = isinstance(error, LlmRunError)
    blames = error.ranks if isinstance(error, DistributedError) else ()
    _write(
        replace(
            own,
            status=error.exit_status if isinstance(error, LlmRunError) else 1,
            error=str(error) if is_ours else f"{type(error).__name__}: {error}",
            is_told=is_ours,
            blames=tuple(other for other in blames if other != own.rank),
            at=time.time(),
        )
    )


def read_record(path: Path) -> RankRecord | None:
    """Return a record; ``None`` where there is none."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return RankRecord(**fields | {"blames": tuple(fields["blames"])})


def _write(record: RankRecord) -> None:
    if FOLDER not in os.environ:
        return
    path = _path(record)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(record)), encoding="utf-8")
    scratch.replace(path)


def _own() -> RankRecord:
    rank, local_rank = (int(os.environ.get(name, "0")) for name in ("PADDLE_TRAINER_ID", "PADDLE_LOCAL_RANK"))
    return RankRecord(rank=rank, local_rank=local_rank, pid=os.getpid())


def _path(record: RankRecord) -> Path:
    return Path(os.environ[FOLDER]) / f"rank.{record.rank}.json"
