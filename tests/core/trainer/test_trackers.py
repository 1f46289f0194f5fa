from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.trainer.trackers import Tracker


class Notes:
    """Stands in for VisualDL's writer."""

    def __init__(self, logdir: str) -> None:
        self.logdir, self.scalars, self.closed = logdir, [], False

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def close(self) -> None:
        self.closed = True


def test_every_number_of_a_row_is_written_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "visualdl", SimpleNamespace(LogWriter=Notes))
    tracker = Tracker("visualdl", tmp_path)
    tracker.write({"step": 4, "loss": 2.5, "eval_tokens": 8, "note": "x", "grad_norm": None})
    tracker.close()
    notes = tracker._writer
    assert notes.scalars == [("loss", 2.5, 4), ("eval_tokens", 8, 4)]
    assert (notes.logdir, notes.closed) == (str(tmp_path / "runs"), True)


def test_tensorboard_files_can_be_read_by_tensorboard(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = Tracker("tensorboard", tmp_path)
    tracker.write({"step": 3, "loss": 1.5})
    tracker.close()
    events = reader.EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 1.5)]


@pytest.mark.parametrize("name", ["visualdl", "tensorboard"])
def test_a_missing_package_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    for module in [module for module in sys.modules if module.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(RefusedError, match=rf"--report_to: {name} needs a package that is not installed .* {name}"):
        Tracker(name, tmp_path)


def test_none_writes_nothing(tmp_path: Path) -> None:
    tracker = Tracker("none", tmp_path)
    tracker.write({"step": 1, "loss": 1.0})
    tracker.close()
    assert not list(tmp_path.iterdir())
