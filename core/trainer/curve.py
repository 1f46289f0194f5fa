"""loss.png: training and evaluation loss by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .metrics import read_metrics

NAME = "loss.png"
TRAINING, EVALUATION, GREY = "#3b6fb6", "#d1603d", "#666666"


def draw_curve(root: Path, title: str) -> Path | None:
    """Draw the losses in ``metrics.jsonl``; ``None`` where there is none yet."""
    rows = read_metrics(root)
    training = _points(rows, "loss")
    evaluation = _points(rows, "eval_loss")
    if not training and not evaluation:
        return None

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if training:
        label = f"training, at last {training[-1][1]:.3f}"
        axes.plot(*zip(*training, strict=True), color=TRAINING, alpha=0.3, linewidth=1)
        axes.plot(
            *zip(*_smoothed(training), strict=True),
            color=TRAINING,
            linewidth=2,
            label=f"training, at last {training[-1][1]:.3f}",
        )
    if evaluation:
        label = f"evaluation, at last {evaluation[-1][1]:.3f}"
        axes.plot(*zip(*evaluation, strict=True), color=EVALUATION, marker="o", markersize=5, label=label)
    axes.set(xlabel="step", ylabel="loss")
    axes.set_title(title, loc="left", fontsize=11, color=GREY)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    temporary = root / f".{NAME}.tmp"
    figure.savefig(temporary, format="png")
    return temporary.replace(root / NAME)


def _points(rows: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Centred mean over a twentieth of the points."""
    half = len(points) // 40
    window = [points[max(0, i - half) : i + half + 1] for i in range(len(points))]
    return [(points[i][0], sum(loss for _, loss in part) / len(part)) for i, part in enumerate(window)]
