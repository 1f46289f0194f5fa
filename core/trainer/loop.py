"""The training loop."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

from ..data.collate import collate
from ..errors import TrainingError
from ..parallel.sharding import hold
from .agreement import Agreement
from .budget import Budget
from .evaluate import count_samples, evaluate
from .flops import ModelFlops, measure_peak
from .guard import Guard
from .optimizer import AdamW
from .precision import LossScale, Precision
from .rates import lr_scales
from .recompute import apply_recompute
from .record import versions, write_record
from .rehearsal import rehearse
from .reporter import Reporter
from .saver import Saver
from .schedule import Schedule
from .signals import StopRequest
from .silence import Silence
from .snapshot import TrainerState
from .step import MicroBatch, StepResult, TrainStep

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .job import Job
    from .workspace import Workspace

_log = logging.getLogger("llm_run.trainer")


def train(job: Job, workspace: Workspace, checkpoint: Checkpoint | None) -> int:
    """Train to the last step, or until a signal asks to stop.

    Step k always consumes the same samples at the same learning rate with the same random numbers, whether the run
    was interrupted or not.

    Args:
        job: model, data and options.
        workspace: the locked output directory.
        checkpoint: where to go on from; ``None`` starts at step 0.

    Returns:
        The exit status: 0, or 143 / 130 after SIGTERM / SIGINT, once a checkpoint is saved.

    Raises:
        TrainingError: steps are not finite again and again, or nothing can be saved.
    """
    with StopRequest() as stop, Trainer(job, workspace, checkpoint) as trainer:
        if checkpoint is None:
            trainer.rehearse()
        if trainer.is_done:
            _log.info("all %d steps are made: nothing is left to train", trainer.budget.total_steps)
        while not trainer.is_done and not stop.is_agreed(job.mesh):
            trainer.step()
            trainer.save_if_due()
            trainer.evaluate_if_due(stop)
        if stop.is_agreed(job.mesh):
            trainer.leave(stop)
            return stop.exit_status
        trainer.finish(stop)
        return stop.exit_status


class Trainer:
    """The parts of one run and where it stands."""

    def __init__(self, job: Job, workspace: Workspace, checkpoint: Checkpoint | None) -> None:
        options = job.options
        self.job = job
        self.options = options
        self.mesh = job.mesh
        self.state = checkpoint.state if checkpoint else TrainerState()
        self.budget = Budget.from_options(options, job.training.epoch_size, self.mesh.data_world)
        self.schedule = Schedule.from_options(options, self.budget.total_steps)
        self.precision = Precision(options)
        self.flops = ModelFlops(job.model, job.config)
        if options.recompute:
            apply_recompute(job.model, options.recompute_granularity)
        self.holding = hold(job.model, self.mesh)
        self.optimizer = AdamW(self.holding, options, lr_scales(job))
        self.saver = Saver(
            workspace.checkpoints, job.model, self.optimizer,
            identity=job.identity, about=self._about(), limit=options.save_total_limit, mesh=self.mesh,
        )  # fmt: skip
        if checkpoint:
            self._restore(checkpoint)
        owned = {name: self.saver.ownership.owned[f"model/{name}"] for name in self.holding.parts}
        agreement = Agreement(self.mesh, self.holding.parts, owned)
        self.train_step = TrainStep(job.model, self.optimizer, self.precision, agreement, seed=options.seed)
        self.guard = Guard(
            options.max_skipped_steps, self.precision.scale, self.saver.whereabouts, in_row=self.state.skipped_in_row
        )
        self._saved_step = self.state.step
        self._evaluated_step = -1
        job.model.train()

    def __enter__(self) -> Self:
        root, start, total = self.saver.store.root, self.state.step, self.budget.total_steps
        peak = measure_peak(self.precision.dtype) * self.mesh.world.size
        self.reporter: Reporter | Silence = Silence()
        if not self.mesh.is_main:
            return self
        try:
            write_record(root, self.job.run, data=self.job.fingerprints, resumed_from=start, total_steps=total)
            self.reporter = Reporter(
                root, self.options, title=self.job.title, total_steps=total, start=start, peak_flops=peak
            )
        except OSError as error:
            raise TrainingError(f"{root} cannot be written ({error.strerror or error})") from error
        return self

    def __exit__(self, *error: object) -> None:
        self.reporter.close()

    @property
    def is_done(self) -> bool:
        """Whether the last step has been made."""
        return self.state.step >= self.budget.total_steps

    def rehearse(self) -> None:
        """Save and reload once, unless the user said no."""
        if self.options.save_rehearsal:
            rehearse(self.saver, self.saver.store.root, self.job.export)

    def step(self) -> None:
        """Make one optimizer step on the next global batch."""
        start = time.perf_counter()
        rate = self.schedule.rate(self.state.step)
        micro_batches = self._next_micro_batches()
        result = self.train_step.run(micro_batches, rate)
        samples = range(self.state.samples, self.state.samples + self.budget.batch_size)
        self.guard.check(self.state.step + 1, result, samples)
        self._advance(result)
        # Of all ranks: rows of one batch are about as long on each of them.
        flops = self.mesh.data_world * sum(self.flops.of_batch(*micro.batch.ids_BS.shape) for micro in micro_batches)
        self.reporter.step(self.state, result, rate=rate, seconds=time.perf_counter() - start, flops=flops)

    def save_if_due(self) -> None:
        """Save where the strategy says so, at the last step, and where the last try failed."""
        strategy = self.options.save_strategy
        due = self.budget.is_due(strategy, self.options.save_steps, self.state.step)
        last = self.is_done and strategy != "no"
        if not (due or last or self.saver.is_pending):
            return
        try:
            self._save(must=last)
        except TrainingError as error:
            if not self.is_done:
                raise
            _log.warning("%s Training is over, and the model directory is written all the same.", error)

    def leave(self, stop: StopRequest) -> None:
        """Save before leaving early, unless this step is saved already."""
        if self._saved_step != self.state.step:
            self._save(must=True)
        _log.info("stopped by a signal (exit status %d) after step %d", stop.exit_status, self.state.step)

    def evaluate_if_due(self, stop: StopRequest) -> None:
        """Evaluate where the strategy says so."""
        interval = self.options.eval_steps or self.options.logging_steps
        if self.budget.is_due(self.options.evaluation_strategy, interval, self.state.step):
            self._evaluate(stop)

    def finish(self, stop: StopRequest) -> None:
        """Evaluate once more, and write the model directory."""
        if self._evaluated_step != self.state.step:
            self._evaluate(stop)
        store = self.saver.store
        try:
            with self.saver.whole_weights(self.state) as weights:
                if self.mesh.is_main:
                    self.job.publish(store.storage, store.root, weights)
        except OSError as error:
            said = f"{store.root}: the model directory cannot be written ({error.strerror or error})"
            raise TrainingError(f"{said}. {self.saver.whereabouts()} The same command goes on from there.") from error

    def _about(self) -> dict[str, Any]:
        """Return what a reader of a checkpoint's manifest may want to know."""
        layout = {} if self.mesh.is_alone else {"layout": asdict(self.mesh.plan)}
        return {"versions": versions(), **layout}

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.saver.restore(checkpoint)
        scale = self.precision.scale
        if scale.dynamic:
            scale.value, scale.good_steps = self.state.loss_scale, self.state.loss_scale_good_steps

    def _next_micro_batches(self) -> list[MicroBatch]:
        """Return this rank's micro-batches: the ranks' shares of a global batch lie one after the other in it."""
        size = self.options.per_device_train_batch_size
        share = self.budget.batch_size // self.mesh.data_world
        first = self.state.samples + self.mesh.data_rank * share
        return [
            MicroBatch(
                collate(
                    [self.job.training.sample(position) for position in range(start, start + size)],
                    self.job.config,
                    self.job.pad_id,
                ),
                start,
            )
            for start in range(first, first + share, size)
        ]

    def _advance(self, result: StepResult) -> None:
        scale: LossScale = self.precision.scale
        self.state = replace(
            self.state,
            step=self.state.step + 1,
            samples=self.state.samples + self.budget.batch_size,
            tokens=self.state.tokens + result.num_supervised,
            updates=self.optimizer.updates,
            skipped_in_row=self.guard.in_row,
            loss_scale=scale.value,
            loss_scale_good_steps=scale.good_steps,
        )

    def _save(self, *, must: bool) -> None:
        if self.saver.save(self.state, must=must):
            self._saved_step = self.state.step
            self.reporter.draw_if_old()

    def _evaluate(self, stop: StopRequest) -> None:
        source = self.job.evaluation
        if source is None:
            return
        start = time.perf_counter()
        size, most = self.options.per_device_eval_batch_size, self.options.max_evaluate_steps
        with self.reporter.evaluating(count_samples(source, size, most)) as advance:
            evaluation = evaluate(
                self.job.model, source, batch_size=size, pad_id=self.job.pad_id, max_batches=most, mesh=self.mesh,
                stopped=lambda: stop.is_agreed(self.mesh), advance=advance,
            )  # fmt: skip
        self.holding.rest()
        if evaluation is not None:
            self._evaluated_step = self.state.step
            self.reporter.evaluation(self.state, evaluation, time.perf_counter() - start)
