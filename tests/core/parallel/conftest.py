"""Stars of threads, and ranks in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.parallel.rendezvous import accept_all, connect, free_port, listen
from llm_run.core.parallel.wire import Wire

LIMIT = 90
"""Seconds after which processes are ended: far more than they need, less than a hang."""
Star = Callable[..., dict[int, Wire]]


@pytest.fixture
def star() -> Iterator[Star]:
    """Makes the wires of a group, one end for each rank."""
    made: list[Wire] = []

    def build(*ranks: int, timeout_s: float = 5.0) -> dict[int, Wire]:
        wires: dict[int, Wire] = {}
        server = listen()
        address = ("127.0.0.1", server.getsockname()[1])

        def join(rank: int) -> None:
            wires[rank] = connect(address, ranks, rank, token="t", timeout_s=timeout_s)

        threads = [threading.Thread(target=join, args=(rank,)) for rank in ranks[1:]]
        for thread in threads:
            thread.start()
        wires[ranks[0]] = accept_all(server, ranks, token="t", timeout_s=timeout_s)
        for thread in threads:
            thread.join()
        made.extend(wires.values())
        return wires

    yield build
    for wire in made:
        wire.close()


def together(calls: dict[int, Callable[[], Any]]) -> dict[int, Any]:
    """Run one call for each rank at the same time; return what it returned, or the exception."""
    found: dict[int, Any] = {}

    def run(rank: int) -> None:
        try:
            found[rank] = calls[rank]()
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    return found


def run_ranks(
    size: int, program: Path, folder: Path, words: Sequence[str] = (), *, limit: float = LIMIT
) -> list[dict[str, Any]]:
    """Run a program in ``size`` processes that find each other, and return what each wrote as JSON.

    The program gets the path of its result as first word. All processes are over when this returns.
    """
    port = free_port()
    environment = os.environ | {
        "PADDLE_TRAINERS_NUM": str(size), "PADDLE_MASTER": f"127.0.0.1:{port}", "LLM_RUN_JOB": str(folder),
        "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "2",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), str(folder / f"{rank}.json"), *words],
            env=environment | {"PADDLE_TRAINER_ID": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=limit)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="session")
def ranks() -> Callable[..., list[dict[str, Any]]]:
    """``run_ranks``, for tests in folders below."""
    return run_ranks


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks computed with each other (``rank_program.py``), by rank."""
    return run_ranks(2, Path(__file__).parent / "rank_program.py", tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="session")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What four ranks of a plan with overlapping groups say of their meshes (``mesh_program.py``), by rank."""
    return run_ranks(4, Path(__file__).parent / "mesh_program.py", tmp_path_factory.mktemp("four"))


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]
