"""What happens between a checked request and its task."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.errors import DistributedError
from llm_run.core.launch import start
from llm_run.core.launch.record import FOLDER, read_record
from llm_run.core.request import prepare
from llm_run.core.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    words = f"--task data --family llama --input_path i --output_prefix p --tokenizer_name_or_path {tmp_path}"
    return prepare(resolve(parse(words.split()))[0])[0]


def test_a_task_that_computes_nothing_starts_without_paddle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_expected(*arguments: object, **more: object) -> None:
        raise AssertionError("Paddle was started")

    monkeypatch.setattr(start, "choose_device", not_expected)
    monkeypatch.setattr(start, "settle", not_expected)
    monkeypatch.setattr(start, "load_task", lambda name: lambda run: 7)
    assert start.start(run, [], words=[], may_restart=False) == 7


def test_notes_are_logged_before_the_task(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(start, "load_task", lambda name: lambda run: 0)
    caplog.set_level("INFO")
    start.start(run, ["a: is called b here"], words=[], may_restart=False)
    assert "llm-run: note: a: is called b here" in caplog.text


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Be rank 1 of 2 under llm-run's launcher; the path of the record that this rank leaves."""
    for name, value in {
        "PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ID": "1", "PADDLE_LOCAL_RANK": "1", "PADDLE_LOCAL_SIZE": "2",
        "PADDLE_MASTER": "h:1", FOLDER: str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("llm_run.core.launch.processes.die_with_parent", lambda: None)
    return tmp_path / "rank.1.json"


@pytest.mark.parametrize(("status", "told"), [(0, 0), (143, 0), (130, 0), (1, 1)])
def test_a_rank_notes_its_exit_status_and_hides_a_stop_from_the_launcher(
    run: Run, rank: Path, monkeypatch: pytest.MonkeyPatch, status: int, told: int
) -> None:
    monkeypatch.setattr(start, "load_task", lambda name: lambda run: status)
    assert start.start(run, [], words=[], may_restart=False) == told
    record = read_record(rank)
    assert record is not None
    assert (record.rank, record.local_rank, record.pid, record.status) == (1, 1, os.getpid(), status)


def test_a_rank_notes_why_it_fails(run: Run, rank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(run: Run) -> int:
        raise DistributedError("rank 0 has ended", ranks=(0,))

    monkeypatch.setattr(start, "load_task", lambda name: task)
    with pytest.raises(DistributedError):
        start.start(run, [], words=[], may_restart=False)
    record = read_record(rank)
    assert record is not None
    assert (record.status, record.error, record.blames, record.is_told) == (1, "rank 0 has ended", (0,), True)


def test_a_rank_of_somebody_elses_launcher_is_quiet_unless_it_is_the_first(
    run: Run, rank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER)
    monkeypatch.setattr(start, "load_task", lambda name: lambda run: 143)
    logger = logging.getLogger("llm_run")
    level = logger.level
    try:
        assert start.start(run, [], words=[], may_restart=False) == 143
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(level)
    assert not rank.exists()
