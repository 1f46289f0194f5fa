"""Metrics to TensorBoard or VisualDL."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import Problem, RefusedError

FOLDER = "runs"


class Tracker:
    """Writes scalars to ``output_dir/runs``; with ``report_to`` none it does nothing."""

    def __init__(self, report_to: str, root: Path) -> None:
        """Open the writer.

        Raises:
            RefusedError: the package is not installed.
        """
        self._writer = None if report_to == "none" else _open(report_to, root / FOLDER)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write every number of a metrics row at its step."""
        if self._writer is None:
            return
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float):
                self._writer.add_scalar(key, value, row["step"])

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()


def _open(report_to: str, folder: Path) -> Any:
    try:
        if report_to == "visualdl":
            return import_module("visualdl").LogWriter(logdir=str(folder))
        return _TensorBoard(folder)
    except ModuleNotFoundError as error:
        reason = f"needs a package that is not installed ({error.name})"
        raise RefusedError(Problem("--report_to", report_to, reason, f"Run: pip install {report_to}")) from None


class _TensorBoard:
    """TensorBoard's own event files, without PyTorch and without TensorFlow."""

    def __init__(self, folder: Path) -> None:
        self._event = import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
        self._file = import_module("tensorboard.summary.writer.event_file_writer").EventFileWriter(str(folder))

    def add_scalar(self, key: str, value: float, step: int) -> None:
        summary = self._summary(value=[self._summary.Value(tag=key, simple_value=value)])
        self._file.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._file.close()
