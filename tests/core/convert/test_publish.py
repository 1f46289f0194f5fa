from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llm_run.core.convert.publish import staged_directory


def test_a_new_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with staged_directory(target) as staging:
        (staging / "config.json").write_text("{}")
        assert not target.exists()
    assert [file.name for file in target.iterdir()] == ["config.json"]
    assert [file.name for file in target.parent.iterdir()] == ["model"]


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"), staged_directory(tmp_path / "model") as staging:
        (staging / "half").touch()
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_an_older_model_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("old")
    with pytest.raises(OSError, match="disk full"), staged_directory(tmp_path / "model") as staging:
        (staging / "config.json").write_text("new")
        raise OSError("disk full")
    assert (tmp_path / "model" / "config.json").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_other_files_of_a_directory_are_left_alone_and_stale_weights_go(tmp_path: Path) -> None:
    target = tmp_path / "run"
    (target / "checkpoint-10").mkdir(parents=True)
    for name in ("metrics.jsonl", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"):
        (target / name).write_text("old")
    with staged_directory(target) as staging:
        (staging / "model.safetensors").write_text("new")
        (staging / "config.json").write_text("new")
    assert {file.name for file in target.iterdir()} == {
        "checkpoint-10", "metrics.jsonl", "model.safetensors", "config.json",
    }  # fmt: skip
    assert (target / "config.json").read_text() == "new"


KILLED = """
import os, signal, sys
from pathlib import Path
from llm_run.core.convert.publish import staged_directory
with staged_directory(Path(sys.argv[1])) as staging:
    (staging / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_leaves_no_half_directory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "model")], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    with staged_directory(tmp_path / "model") as staging:
        assert list(staging.iterdir()) == []
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
