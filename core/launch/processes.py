"""The command that starts the ranks of this machine, and the environment that it gives them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from ..config.groups import LaunchOptions
from ..errors import Problem, RefusedError
from ..parallel.membership import JOB, parse_address
from ..parallel.rendezvous import free_port
from .record import FOLDER
from .world import World

LAUNCHER_READS = (
    "POD_IP", "PADDLE_MASTER", "PADDLE_DEVICES", "PADDLE_NNODES", "PADDLE_RUN_MODE", "PADDLE_LOG_LEVEL",
    "PADDLE_LOG_OVERWRITE", "PADDLE_SORT_IP", "PADDLE_NPROC_PER_NODE", "PADDLE_JOB_ID", "PADDLE_RANK", "PADDLE_LOG_DIR",
    "PADDLE_MAX_RESTART", "PADDLE_ELASTIC_LEVEL", "PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_IPS",
)  # fmt: skip
"""Variables that would override the launcher's flags."""
DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def rank_command(words: Sequence[str]) -> list[str]:
    """Return the command of one rank: the same as of this process."""
    return [sys.executable, "-u", "-m", "llm_run.core", *words]


def launcher_command(target: Sequence[str], launch: LaunchOptions, world: World, log_dir: Path) -> list[str]:
    """Return the command of Paddle's launcher that runs ``target`` in every rank of this machine.

    Raises:
        RefusedError: the first machine is not known here.
    """
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(world.local_size)]
    command += ["--log_dir", str(log_dir), "--job_id", "llm-run"]
    if launch.devices is not None:
        command += ["--devices", launch.devices]
    if launch.nnodes > 1:
        host, port = _master(launch)
        # The launcher serves the others where it finds its own address, by a way that fails on many machines.
        host = "127.0.0.1" if launch.node_rank == 0 else _resolve(host)
        command += ["--nnodes", str(launch.nnodes), "--rank", str(launch.node_rank), "--master", f"{host}:{port}"]
    return [*command, *target]


def launcher_environment(
    inherited: Mapping[str, str], launch: LaunchOptions, settings: Mapping[str, str], log_dir: Path
) -> dict[str, str]:
    """Return the environment of the launcher, which hands it to the ranks.

    Args:
        inherited: of this process.
        launch: the options.
        settings: of ``environment.py``, for one rank.
        log_dir: folder of logs and records.
    """
    kept = {name: value for name, value in inherited.items() if name not in LAUNCHER_READS}
    if launch.nnodes > 1:
        host, port = _master(launch)
        meeting = {"MASTER_ADDR": host, "MASTER_PORT": str(port + 1), JOB: f"{host}:{port}"}
    else:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), JOB: uuid4().hex}
    return {**kept, **settings, **meeting, FOLDER: str(log_dir)}


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask Linux to send this process a signal when its parent dies, however that dies."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, number)


def is_running(pid: int) -> bool:
    """Whether a process lives: not one that has ended and waits to be looked at."""
    return _state(pid) not in ("", "Z", "X")


def is_stopped(pid: int) -> bool:
    """Whether a process stands still by a signal."""
    return _state(pid) in ("T", "t")


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started and that still exist."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def _master(launch: LaunchOptions) -> tuple[str, int]:
    address = parse_address(launch.master or "")
    if address is None:
        raise RefusedError(Problem("--master", f"'{launch.master}'", "is not host:port", "Name the first machine."))
    return address


def _resolve(host: str) -> str:
    """Return the address of a host; Paddle's launcher takes no names."""
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise RefusedError(
            Problem("--master", host, f"cannot be found: {error.strerror}", "Give an address.")
        ) from error


def log_directory(output_dir: str, launch: LaunchOptions) -> Path:
    """Create the folder of logs, which only the user can read: Paddle's launcher writes the environment there.

    Machines that share ``output_dir`` get a folder each.

    Raises:
        RefusedError: it cannot be created.
    """
    folder = Path(output_dir) / "logs"
    if launch.nnodes > 1:
        folder /= f"node-{launch.node_rank}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        reason = f"cannot be a folder ({error.strerror})"
        raise RefusedError(Problem("--output_dir", output_dir, reason, "Give another directory.")) from error
    return folder


def remove_environment_copies(folder: Path) -> None:
    """Delete what Paddle's launcher wrote of the environment: it may hold passwords."""
    for pattern in ("envlog.*", "backup_env.*.json", "llm-run.*.log"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def new_session() -> None:
    """Prepare the launcher: Ctrl-C in the terminal reaches llm-run alone, which tells the ranks once."""
    os.setsid()
    die_with_parent()
