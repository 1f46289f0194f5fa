from __future__ import annotations

from pathlib import Path

from llm_run.core.trainer.curve import draw_curve
from llm_run.core.trainer.metrics import MetricsFile


def test_the_curve_is_a_png_of_both_losses_and_changes_with_them(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, keep_through=0)
    assert draw_curve(tmp_path, "pretrain") is None
    for step in range(1, 50):
        metrics.write({"step": step, "loss": 5.0 / step})
    metrics.write({"step": 50, "loss": None})
    first = draw_curve(tmp_path, "pretrain")
    assert first is not None and first.name == "loss.png"
    picture = first.read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    metrics.write({"step": 50, "eval_loss": 0.2})
    assert draw_curve(tmp_path, "pretrain") == first
    assert first.read_bytes() != picture
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]
