"""Which of how many processes this is, as whoever started it says in the environment. Imports no Paddle.

``paddle.distributed.launch`` and Kubernetes set PADDLE_*; Slurm sets SLURM_* for the tasks of ``srun``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import Problem, RefusedError

JOB = "LLM_RUN_JOB"
"""Variable with a mark of the run, so that ranks of two runs on one machine do not meet."""
SLURM_PORTS = range(20000, 30000)
"""One of these is the port of a Slurm job, by its number; MASTER_PORT overrides it."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A process that is one of several."""

    rank: int
    size: int
    local_rank: int
    """Among the processes of this machine."""
    local_size: int
    master: tuple[str, int]
    """Where rank 0 listens: host and port."""
    source: str
    """The variable that says how many processes there are."""

    def variables(self) -> dict[str, str]:
        """Return the variables by which ``find_membership`` finds this again."""
        return {
            "PADDLE_TRAINER_ID": str(self.rank),
            "PADDLE_TRAINERS_NUM": str(self.size),
            "PADDLE_LOCAL_RANK": str(self.local_rank),
            "PADDLE_LOCAL_SIZE": str(self.local_size),
            "PADDLE_MASTER": f"{self.master[0]}:{self.master[1]}",
        }


def find_membership(environment: Mapping[str, str]) -> Membership | None:
    """Return what this process is a member of by PADDLE_*; ``None`` where it was started alone.

    Raises:
        RefusedError: variables contradict each other, or the first machine is not named.
    """
    if environment.get("PADDLE_TRAINERS_NUM", "1") == "1":
        return None
    size = _number(environment, "PADDLE_TRAINERS_NUM")
    rank = _number(environment, "PADDLE_TRAINER_ID")
    if rank >= size:
        raise _wrong("PADDLE_TRAINER_ID", str(rank), f"is not below PADDLE_TRAINERS_NUM ({size})", "Count from 0.")
    hosts = [text for text in environment.get("PADDLE_TRAINER_ENDPOINTS", "").split(",") if text]
    local_size = _number(environment, "PADDLE_LOCAL_SIZE", default=1)
    return Membership(
        rank, size, _number(environment, "PADDLE_LOCAL_RANK", default=0), local_size,
        _master(environment, hosts[0] if hosts else None), "PADDLE_TRAINERS_NUM",
    )  # fmt: skip


def membership_of_slurm(environment: Mapping[str, str]) -> Membership | None:
    """Return which task of ``srun`` this process is; ``None`` where it is none, or the only one.

    Raises:
        RefusedError: variables are missing.
    """
    if "SLURM_PROCID" not in environment or environment.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return None
    job = _number(environment, "SLURM_JOB_ID", default=0)
    port = SLURM_PORTS[job % len(SLURM_PORTS)]
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    here = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    node = _number(environment, "SLURM_NODEID", default=0)
    return Membership(
        _number(environment, "SLURM_PROCID"),
        _number(environment, "SLURM_STEP_NUM_TASKS"),
        _number(environment, "SLURM_LOCALID", default=0),
        tasks_on_node(here, node) if here else 1,
        _master(environment, f"{first_host(nodes)}:{port}" if nodes else None),
        "SLURM_STEP_NUM_TASKS",
    )


def first_host(nodes: str) -> str:
    """Return the first of Slurm's list of hosts: ``n[07-09,12],m1`` begins with n07."""
    found = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?([^,]*)", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes


def tasks_on_node(tasks: str, node: int) -> int:
    """Return the tasks of one node from Slurm's list: ``4(x2),3`` is 4, 4 and 3."""
    counts: list[int] = []
    for part in tasks.split(","):
        count, _, times = part.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts[node] if node < len(counts) else counts[-1]


def parse_address(text: str) -> tuple[str, int] | None:
    """Split ``host:port``; ``None`` where it is something else."""
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon and host and port.isdecimal() and 0 < int(port) < 65536 else None


def _master(environment: Mapping[str, str], otherwise: str | None) -> tuple[str, int]:
    """Return the first machine's address, by the first variable that has it."""
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    given = f"{host}:{port}" if host and port else environment.get("PADDLE_MASTER") or otherwise
    if given is None:
        raise _wrong("PADDLE_MASTER", "", "is needed to join the other processes", "Set it to host:port of rank 0.")
    address = parse_address(given)
    if address is None:
        raise _wrong("PADDLE_MASTER", f"'{given}'", "is not host:port", "Set it to host:port of rank 0.")
    return address


def _number(environment: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if text.isdecimal():
        return int(text)
    said = f"'{text}'" if text else ""
    raise _wrong(name, said, "must be a number from 0", "Whoever starts the processes sets it.")


def _wrong(key: str, value: str, reason: str, remedy: str) -> RefusedError:
    return RefusedError(Problem(key, value, reason, remedy))
