"""What happens between a checked request and its task."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.errors import RefusedError
from llm_run.core.launch import start
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
    assert start.start(run, [], may_restart=False) == 7


def test_notes_are_logged_before_the_task(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(start, "load_task", lambda name: lambda run: 0)
    caplog.set_level("INFO")
    start.start(run, ["a: is called b here"], may_restart=False)
    assert "llm-run: note: a: is called b here" in caplog.text


def test_being_one_of_several_processes_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(RefusedError) as caught:
        start.start(run, [], may_restart=False)
    assert str(caught.value) == (
        "PADDLE_TRAINERS_NUM: 2 processes are not in this version. Start llm-run without a launcher, in one process."
    )
