from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.convert import save as convert_save
from llm_run.core.errors import TrainingError
from llm_run.core.trainer.storage import Storage


def test_a_rehearsal_leaves_nothing_and_changes_nothing(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "llm_run.trainer"):
        assert run_job(make_job(tmp_path / "with", rows(), save_rehearsal=True)) == 0
        assert run_job(make_job(tmp_path / "without", rows())) == 0
        # Going on from a checkpoint has been proven by that checkpoint.
        assert run_job(make_job(tmp_path / "with", rows(), save_rehearsal=True, max_steps=7)) == 0
    assert sum(message.startswith("save rehearsal: ") for message in caplog.messages) == 1
    assert sorted(os.listdir(tmp_path / "without")) == sorted(set(os.listdir(tmp_path / "with")) - {"checkpoint-7"})
    weights = [
        (tmp_path / name / "checkpoint-6" / "model-00000.safetensors").read_bytes() for name in ("with", "without")
    ]
    assert weights[0] == weights[1]


class Broken(Storage):
    """A disk that is full, or that loses a bit."""

    def __init__(self, *, full: bool) -> None:
        self.full = full

    def write_chunk(self, descriptor: int, chunk: memoryview) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        content = np.frombuffer(chunk, np.uint8).copy()
        content[-1] ^= 1
        super().write_chunk(descriptor, memoryview(content))


@pytest.mark.parametrize(
    ("full", "text"), [(True, r"save rehearsal: .* cannot be written \(No space left on device\)"),
                       (False, r"save rehearsal: .*MANIFEST\.json: (is damaged|cannot be read)")]
)  # fmt: skip
def test_what_cannot_be_saved_is_found_before_the_first_step(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, full: bool, text: str
) -> None:
    with pytest.raises(TrainingError, match=text):
        run_job(make_job(tmp_path, rows(), save_rehearsal=True), Broken(full=full))
    assert not [name for name in os.listdir(tmp_path) if "rehearsal" in name]
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_model_directory_that_cannot_be_written_is_found_too(
    tmp_path: Path, make_job: Any, run_job: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(convert_save, "write_model_directory", fail)
    with pytest.raises(TrainingError, match=r"save rehearsal: .* cannot be written \(Disk quota exceeded\)"):
        run_job(make_job(tmp_path, rows(), save_rehearsal=True))
