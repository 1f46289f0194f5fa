"""The command itself in two processes, started by llm-run and by somebody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.launch.environment import MARK, share_of_cores
from llm_run.core.parallel.rendezvous import free_port

PROGRAM = Path(__file__).parent / "cli_program.py"
LIMIT = 90
"""Seconds after which processes are ended."""


def command(folder: Path, *more: str) -> list[str]:
    words = "--task pretrain --family llama --model_size tiny --input_dir d --max_length 64 --sequence_parallel"
    return [sys.executable, str(PROGRAM), *words.split(), "--output_dir", str(folder), *more]


@pytest.fixture
def environment() -> dict[str, str]:
    """Without what the test runner or an outer job has set."""
    ours = ("OMP_", "MALLOC_", "PADDLE_", "SLURM_", MARK)
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"seen.{rank}.json").read_text()) for rank in range(2)]


def test_one_command_starts_its_ranks_which_find_each_other(tmp_path: Path, environment: dict[str, str]) -> None:
    words = command(tmp_path, "--nproc_per_node", "2", "--dist_timeout", "60")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == "llm-run: note: sequence_parallel: off, since tensor_parallel_degree is 1\n"
    for found in seen(tmp_path):
        assert found["total"] == 3
        assert "dp=2" in found["plan"]
        assert found["threads"] == str(share_of_cores(2))
        assert found["argv"] == words[2:]
    assert (tmp_path / "logs").stat().st_mode & 0o77 == 0
    assert (tmp_path / "logs" / "workerlog.1").exists()


def test_the_same_command_joins_tasks_of_srun_and_rank_0_alone_speaks(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "17", "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            command(tmp_path), env=environment | slurm | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=LIMIT)[1] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert [process.returncode for process in processes] == [0, 0], said
    assert said == ["llm-run: note: sequence_parallel: off, since tensor_parallel_degree is 1\n", ""]
    assert [found["total"] for found in seen(tmp_path)] == [3, 3]
