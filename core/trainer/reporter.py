"""What a person and a program see of training: log line, progress bar, metrics, trackers, loss curve."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..launch.resident import peak_resident_bytes
from .curve import draw_curve
from .metrics import MetricsFile
from .precision import on_gpu
from .trackers import Tracker

if TYPE_CHECKING:
    from ..config.training import TrainingOptions
    from .evaluate import Evaluation
    from .snapshot import TrainerState
    from .step import StepResult

_log = logging.getLogger("llm_run.trainer")

REDRAW_SECONDS = 30
"""A picture takes a third of a second, which checkpoints of a small model would pay at every save."""


@dataclass(slots=True)
class Interval:
    """Sums over the steps since the last log line. Skipped steps add time, and nothing else."""

    loss_sum: float = 0.0
    count: int = 0
    figures: Counter[str] = field(default_factory=Counter)
    num_tokens: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    skipped: int = 0

    def add(self, result: StepResult, *, seconds: float, flops: float) -> None:
        """Add one step."""
        self.seconds += seconds
        if result.fault:
            self.skipped += 1
            return
        self.loss_sum += result.loss * result.count
        self.count += result.count
        self.figures.update({name: mean * result.count for name, mean in result.figures.items()})
        self.num_tokens += result.num_tokens
        self.flops += flops


class Reporter:
    """Reports one run."""

    def __init__(
        self, root: Path, options: TrainingOptions, *, title: str, total_steps: int, start: int, peak_flops: float
    ) -> None:
        self.root = root
        self.options = options
        self.title = title
        self.total_steps = total_steps
        self.peak_flops = peak_flops
        self._interval = Interval()
        self._drawn_at = time.monotonic()
        self._metrics = MetricsFile(root, keep_through=start)
        self._tracker = Tracker(options.report_to, root)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
            console=Console(stderr=True), disable=options.disable_tqdm or not sys.stderr.isatty(),
        )  # fmt: skip
        self._bar = self._progress.add_task("training", total=total_steps, completed=start, loss="")
        self._progress.start()

    def step(self, state: TrainerState, result: StepResult, *, rate: float, seconds: float, flops: float) -> None:
        """Take note of a step, and log where it is due.

        Args:
            state: after the step.
            result: of the step.
            rate: its learning rate.
            seconds: time it took, data included, saving and evaluation not.
            flops: of the model, for the tokens of all ranks and their padding.
        """
        self._interval.add(result, seconds=seconds, flops=flops)
        self._progress.update(self._bar, completed=state.step, loss=f"loss {result.loss:.4f}")
        first = self.options.logging_first_step and state.step == 1
        if first or state.step % self.options.logging_steps == 0 or state.step == self.total_steps:
            self._log_interval(state, result, rate)

    @contextmanager
    def evaluating(self, num_samples: int) -> Iterator[Callable[[int], None]]:
        """Show a second bar while the block evaluates; the yielded function adds samples to it."""
        bar = self._progress.add_task("evaluating", total=num_samples, loss="")
        try:
            yield lambda samples: self._progress.advance(bar, samples)
        finally:
            self._progress.remove_task(bar)

    def evaluation(
        self, state: TrainerState, evaluation: Evaluation, seconds: float, answers: Mapping[str, float]
    ) -> None:
        """Log an evaluation, with the scores of answers where there are some."""
        self._write({"step": state.step, **evaluation.metrics(), **answers, "eval_runtime": round(seconds, 3)})
        scores = "".join(f"  {name} {value:.4f}" for name, value in answers.items())
        _log.info("step %d/%d  %s%s", state.step, self.total_steps, evaluation, scores)

    def draw_if_old(self) -> None:
        """Draw the loss curve where the last picture is older than ``REDRAW_SECONDS``."""
        if time.monotonic() - self._drawn_at > REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        """Draw the loss curve; a disk that refuses it does not end training."""
        self._drawn_at = time.monotonic()
        try:
            draw_curve(self.root, self.title)
        except OSError as error:
            _log.warning("loss.png cannot be written (%s)", error.strerror)

    def close(self) -> None:
        """Stop the progress bar, close all files, and draw the loss curve, whatever training ended with."""
        self._progress.stop()
        self._metrics.close()
        self._tracker.close()
        self._draw()

    def _log_interval(self, state: TrainerState, result: StepResult, rate: float) -> None:
        interval, self._interval = self._interval, Interval()
        loss = interval.loss_sum / interval.count if interval.count else None
        figures = {name: total / interval.count for name, total in interval.figures.items()}
        speed, mfu = interval.num_tokens / interval.seconds, interval.flops / interval.seconds / self.peak_flops
        memory = peak_memory_gb()
        self._write({
            "step": state.step,
            "loss": loss,
            **figures,
            "learning_rate": rate,
            "grad_norm": result.grad_norm,
            "tokens_per_second": round(speed, 2),
            "samples_seen": state.samples,
            "tokens_seen": state.tokens,
            "mfu": round(mfu, 4),
            "memory_gb": round(memory, 3),
            "skipped_steps": interval.skipped,
        })  # fmt: skip
        _log.info(
            "step %d/%d  loss %s%s  lr %.3e  norm %.3f  %.0f tok/s  MFU %.1f%%  %.2f GB",
            state.step, self.total_steps, "skipped" if loss is None else f"{loss:.4f}",
            "".join(f"  {name} {mean:.4f}" for name, mean in figures.items()), rate, result.grad_norm, speed,
            100 * mfu, memory,
        )  # fmt: skip

    def _write(self, row: dict[str, Any]) -> None:
        try:
            self._metrics.write(row)
        except OSError as error:
            _log.warning("metrics.jsonl cannot be written (%s)", error.strerror)
        self._tracker.write(row)


def peak_memory_gb() -> float:
    """Return the most memory used so far: of the GPU where there is one, else of this process, in GB."""
    if on_gpu():
        return float(paddle.device.cuda.max_memory_allocated()) / 1e9
    return peak_resident_bytes() / 1e9
