"""Two ranks under Paddle's launcher: how a run ends, what is said of it, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from llm_run.core.launch.processes import is_running

PROGRAM = Path(__file__).parent / "job_program.py"
LIMIT = 60
"""Seconds after which a job is ended by the test; ranks that wait for each other do so for 100."""


@dataclass(frozen=True)
class Ended:
    """A job that is over."""

    status: int
    said: list[str]
    folder: Path

    @property
    def told(self) -> list[str]:
        """What llm-run itself says; of rank 0, the last words before a failure may or may not be shown."""
        return [line for line in self.said if line.startswith("llm-run: ")]

    @property
    def living(self) -> list[int]:
        """Ranks' processes that still run."""
        pids = [json.loads(path.read_text())["pid"] for path in self.folder.glob("rank.*.json")]
        return [pid for pid in pids if is_running(pid)]


def ended(scenario: str, folder: Path, *, timeout_s: float = 100) -> Ended:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), scenario, str(folder), str(timeout_s)],
        env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    return Ended(done.returncode, done.stderr.splitlines(), folder)


def where(folder: Path) -> str:
    return f"llm-run: the output of each rank is in {folder}/workerlog.N"


def test_a_job_that_ends_well_shows_rank_0_alone_and_keeps_no_copy_of_the_environment(tmp_path: Path) -> None:
    job = ended("well", tmp_path)
    assert job.status == 0
    assert job.said == ["rank 0 says hello"]
    assert (tmp_path / "workerlog.1").read_text() == "rank 1 says hello\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "launcher.log", "rank.0.json", "rank.1.json", "workerlog.0", "workerlog.1",
    ]  # fmt: skip
    assert job.living == []


def test_the_error_of_the_rank_that_failed_comes_first_and_the_others_are_only_named(tmp_path: Path) -> None:
    job = ended("error", tmp_path)
    assert job.status == 1
    assert job.told == [
        "llm-run: rank 1: corpus.jsonl: line 3 is not JSON",
        "llm-run: rank 1: corpus.jsonl: line 9 is not JSON",
        "llm-run: rank 0 ended because of it",
        where(tmp_path),
    ]
    assert job.living == []


def test_a_killed_rank_ends_the_job_and_is_named(tmp_path: Path) -> None:
    job = ended("killed", tmp_path)
    assert job.status == 1
    assert job.told[0].startswith("llm-run: rank 1 has ended without a word: killed")
    assert job.told[1:] == ["llm-run: rank 0 ended because of it", where(tmp_path)]
    assert job.living == []


def test_a_rank_that_stands_still_ends_the_job_by_the_timeout(tmp_path: Path) -> None:
    job = ended("stopped", tmp_path, timeout_s=1)
    assert job.status == 1
    assert job.told[:2] == [
        "llm-run: rank 1 (stopped by a signal) does not answer",
        "llm-run: rank 0: rank 1 did not come to step 3 within 1 seconds (dist_timeout). "
        "It hangs, or needs a higher --dist_timeout.",
    ]
    assert job.living == []


def test_a_rank_that_never_comes_up_shows_why(tmp_path: Path) -> None:
    job = ended("stillborn", tmp_path)
    assert job.status == 1
    assert re.fullmatch(
        r"llm-run: rank 1 of this machine did not start: the launcher ended with status \d+", job.said[0]
    )
    assert "  ImportError: libfabric.so is missing" in job.said
    assert job.living == []


def test_a_signal_reaches_all_ranks_which_leave_at_the_same_step_however_long_one_saves(tmp_path: Path) -> None:
    job = ended("signal", tmp_path)
    assert job.status == 143
    steps = [re.findall(r"saves step (\d+)", (tmp_path / f"workerlog.{rank}").read_text()) for rank in range(2)]
    assert steps[0] == steps[1] and len(steps[0]) == 1
    assert job.said == ["rank 0 says hello", f"rank 0 saves step {steps[0][0]}"]
    assert job.living == []


def test_ranks_that_a_signal_lets_end_their_work_have_ended_well(tmp_path: Path) -> None:
    job = ended("drain", tmp_path)
    assert job.status == 0
    assert job.told == [] and job.living == []


def test_a_signal_before_all_ranks_can_save_stops_them_without_an_error(tmp_path: Path) -> None:
    job = ended("early signal", tmp_path)
    assert job.status == 143
    assert job.told == []
    assert job.living == []
