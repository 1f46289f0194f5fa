"""The training loop."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

from ..data.collate import collate
from ..errors import CheckpointError, TrainingError
from ..parallel.model_part import ModelPart, matrix_sizes
from ..parallel.pipeline.passes import Pipeline
from ..parallel.sharding import hold
from ..parallel.tensor.model import model_parts
from .agreement import Agreement
from .best import BestModel
from .budget import Budget
from .embedding_noise import noise_of
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
            _log.info("all %d steps are made: nothing is left to train", trainer.state.step)
        else:
            trainer.evaluate_if_due(stop)  # where an earlier run was stopped while it evaluated
        while not trainer.is_done and not stop.is_agreed(job.mesh):
            trainer.step()
            # Before saving, so that a checkpoint knows how its step was evaluated.
            trainer.evaluate_if_due(stop)
            trainer.save_if_due()
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
        self.flops = ModelFlops(matrix_sizes(ModelPart(job.model, job.cut), self.mesh), job.config)
        if options.recompute:
            apply_recompute(job.model, options.recompute_granularity)
        self.holding = hold(job.model, self.mesh, model_parts(job.model))
        self.optimizer = AdamW(self.holding, options, lr_scales(job))
        self.saver = Saver(
            workspace.checkpoints, job.model, self.optimizer,
            identity=job.identity, about=self._about(), limit=options.save_total_limit, mesh=self.mesh,
        )  # fmt: skip
        if checkpoint:
            self._restore(checkpoint)
        owned = {name: self.saver.ownership.owned[f"model/{name}"] for name in self.holding.parts}
        agreement = Agreement(self.mesh, self.holding.parts, owned)
        noise = noise_of(job)
        self.pipeline = None if job.cut is None else Pipeline(
            job.model, job.cut, self.mesh, seed=options.seed, autocast=self.precision.autocast,
            begin=lambda micro: noise.expect(micro.batch, micro.position) if noise else None,
        )  # fmt: skip
        self.train_step = TrainStep(
            job.model, self.optimizer, self.precision, agreement, job.objective, seed=options.seed, noise=noise,
            pipeline=self.pipeline,
        )  # fmt: skip
        self.guard = Guard(
            options.max_skipped_steps, self.precision.scale, self.saver.whereabouts, in_row=self.state.skipped_in_row
        )
        self.best = BestModel(options)
        self._saved_step = self.state.step
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
        """Whether the last step has been made, or evaluations get no better."""
        return self.state.step >= self.budget.total_steps or self.best.is_exhausted(self.state)

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
        best = self.options.load_best_model_at_end and self.state.best_step == self.state.step
        if not (due or last or best or self.saver.is_pending):
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
        """Evaluate where the strategy says so, and after the last step, unless this step has been evaluated."""
        interval = self.options.eval_steps or self.options.logging_steps
        due = self.state.step > 0 and self.budget.is_due(self.options.evaluation_strategy, interval, self.state.step)
        if (due or self.is_done) and self.state.evaluated_step != self.state.step:
            self._evaluate(stop)

    def finish(self, stop: StopRequest) -> None:
        """Write the model directory: of the last step, or of the best one where that is asked for."""
        self.evaluate_if_due(stop)
        if self.best.is_exhausted(self.state):
            _log.info("stopped early: %d evaluations were no better", self.state.evaluations_since_best)
        state, store = self._restore_best(), self.saver.store
        try:
            with self.saver.whole_weights(state) as weights:
                if self.mesh.is_main:
                    self.job.publish(store.storage, store.root, weights)
        except OSError as error:
            said = f"{store.root}: the model directory cannot be written ({error.strerror or error})"
            raise TrainingError(f"{said}. {self.saver.whereabouts()} The same command goes on from there.") from error

    def _restore_best(self) -> TrainerState:
        """Put the best evaluation's weights into the model where that is asked for; return the state they are of."""
        step = self.state.best_step
        if not self.options.load_best_model_at_end or step < 0:
            return self.state
        _log.info("the best %s, %.6g, is that of step %d", self.best.metric, self.state.best_value, step)
        if step == self.state.step:
            return self.state
        try:
            self.saver.restore_step(step)
        except (CheckpointError, OSError) as error:
            said = f"The best model cannot be read ({error})."
            raise TrainingError(f"{said} --load_best_model_at_end false writes that of the last step.") from error
        return replace(self.state, step=step)

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
        keep = self.state.best_step if self.options.load_best_model_at_end else None
        if self.saver.save(self.state, must=must, keep=keep):
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
                self.job.model, source, batch_size=size, pad_id=self.job.pad_id, max_batches=most,
                score=self.job.objective.score, mesh=self.mesh, pipeline=self.pipeline,
                stopped=lambda: stop.is_agreed(self.mesh), advance=advance,
            )  # fmt: skip
            answers: dict[str, float] | None = {}
            if evaluation is not None and self.job.answering is not None:
                answers = self.job.answering.figures(
                    self.job.model, self.mesh, self.state.step, lambda: stop.is_agreed(self.mesh)
                )
        self.holding.rest()
        if evaluation is not None and answers is not None:
            self.state = self.best.after(self.state, evaluation.metrics() | answers)
            self.reporter.evaluation(self.state, evaluation, time.perf_counter() - start, answers)
