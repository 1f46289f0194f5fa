from __future__ import annotations

import json
import math
from pathlib import Path

from llm_run.core.trainer.metrics import MetricsFile, read_metrics


def test_rows_are_readable_at_once_and_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, keep_through=0)
    metrics.write({"step": 1, "loss": 2.5, "grad_norm": math.inf, "learning_rate": math.nan})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 2.5, "grad_norm": None, "learning_rate": None}]
    metrics.close()


def test_going_on_takes_out_the_steps_that_are_done_again(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, keep_through=0)
    for step in (1, 2, 3):
        metrics.write({"step": step})
    metrics.close()
    MetricsFile(tmp_path, keep_through=2).close()
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]
    MetricsFile(tmp_path, keep_through=0).close()
    assert read_metrics(tmp_path) == []


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
