"""Forward and backward passes of micro-batches through a pipeline, as one of its stages sees them."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from ...trainer.scalar import to_float
from ..collectives import all_reduce
from ..sep.model import row_share_of
from .flow import Flow
from .inputs import StageInputs
from .schedule import bubble_fraction, forward_schedule, training_schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from paddle import Tensor

    from ...causal_lm import BlockContext, Cache, CausalLM
    from ...data.sample import Batch
    from ...trainer.inputs import Inputs
    from ...trainer.objective import Loss
    from ...trainer.step import MicroBatch
    from ..mesh import Mesh
    from .actions import Action, Schedule
    from .cut import Cut

_log = logging.getLogger("llm_run.parallel")


class Pipeline:
    """This rank's stage. Every rank of a pipeline makes the same calls with the same batches.

    Between stages only hidden states and their gradients pass: each stage makes positions and mask of a batch itself.
    """

    def __init__(
        self,
        model: CausalLM,
        cut: Cut,
        mesh: Mesh,
        *,
        seed: int,
        autocast: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        begin: Callable[[MicroBatch], None] = lambda _: None,
    ) -> None:
        """Take over a stage.

        Args:
            model: with the parameters of this stage (``stage.py``).
            cut: of the model, into as many stages as ``mesh.plan`` has.
            mesh: of this rank.
            seed: of the random numbers in training (dropout).
            autocast: the context in which training computes.
            begin: told each micro-batch of training before the first stage embeds it.
        """
        self.model = model
        self.cut = cut
        self.mesh = mesh
        self.seed = seed
        self.autocast = autocast
        self.begin = begin
        self._sections = [section.index for section in cut.of_stage(mesh.index("pp"))]
        self._last = len(cut.sections) - 1
        self._told: set[int] = set()

    def through(self, model: CausalLM) -> Pipeline:
        """Return the same pipeline of another model that is cut alike."""
        return Pipeline(model, self.cut, self.mesh, seed=self.seed, autocast=self.autocast)

    def backward(
        self, micro_batches: Sequence[MicroBatch], losses: Sequence[Loss], *, count: int, scale: float = 1.0
    ) -> tuple[float, dict[str, float]]:
        """Add the gradients of one step's micro-batches to this stage's parameters, which had none before.

        Args:
            micro_batches: all of the step, on this data rank.
            losses: of the micro-batches; called on the last stage.
            count: what the loss is averaged over in the whole global batch: it is divided by this.
            scale: of the loss in the backward pass.

        Returns:
            What these micro-batches contribute to the mean loss, and the sums of their other figures, on every stage.

        Raises:
            DataError: a token id is not in the model's vocabulary.
            DistributedError: a neighbouring stage has gone or is late.
        """
        found: list[Tensor] = []
        sums: Counter[str] = Counter()
        inputs = StageInputs(self.model, [micro.batch for micro in micro_batches], self._sections[-1])

        def forward(section: int, micro: int, entering: Tensor | None) -> Tensor:
            seed_section(self.seed, micro_batches[micro].position, section, self.mesh.index("sep"))
            if section == 0:
                self.begin(micro_batches[micro])
            with self.autocast():
                hidden_BSH = self._compute(section, entering, *inputs.take(section, micro))
                if section < self._last:
                    return hidden_BSH
                loss_sum, figures = losses[micro](self._without_added(hidden_BSH, micro_batches[micro].batch))
            sums.update(figures)
            found.append(loss_sum.detach())
            return loss_sum * (scale / count)

        self._tell(len(micro_batches))
        Flow(self.mesh, forward).run(self._actions(training_schedule, len(micro_batches)))
        self._sum_tied_gradients()
        self._sum_prefix_gradients()
        share = sum(to_float(loss_sum) / count for loss_sum in found)
        loss, figures = self._of_last_stage([share, sums], "the loss")
        return loss, figures

    def forward(
        self, batches: Sequence[Batch], measure: Callable[[Tensor, Batch], Sequence[float]]
    ) -> list[list[float]]:
        """Compute batches without gradients.

        Args:
            batches: of this data rank; the more at once, the less stages wait.
            measure: called on the last stage with the final hidden states [B, S, H] of each batch, where ranks share
                rows with those of this rank's tokens.

        Returns:
            What ``measure`` returned for each batch, on every stage.

        Raises:
            DataError: a token id is not in the model's vocabulary.
            DistributedError: a neighbouring stage has gone or is late.
        """
        scores: list[list[float]] = []
        inputs = StageInputs(self.model, batches, self._sections[-1])

        def forward(section: int, micro: int, entering: Tensor | None) -> Tensor:
            hidden_BSH = self._compute(section, entering, *inputs.take(section, micro))
            if section == self._last:
                scores.append(list(measure(self._without_added(hidden_BSH, batches[micro]), batches[micro])))
            return hidden_BSH

        with paddle.no_grad():
            Flow(self.mesh, forward).run(self._actions(forward_schedule, len(batches)))
        found: list[list[float]] = self._of_last_stage(scores, "the scores")
        return found

    def _compute(
        self, section: int, entering: Tensor | None, inputs: Inputs, context: BlockContext, cache: Cache | None
    ) -> Tensor:
        """Return the hidden states that leave a section."""
        hidden_BSH = self.model.embed(inputs.ids_BS, inputs.positions) if entering is None else entering
        for block in self.cut.sections[section].blocks:
            hidden_BSH = self.model.blocks[block](hidden_BSH, context, None if cache is None else cache.layer(block))
        return self.model.finish(hidden_BSH) if section == self._last else hidden_BSH

    def _without_added(self, hidden_BSH: Tensor, batch: Batch) -> Tensor:
        """Take off the padding that was added so that tokens divide among ranks, where a rank has all tokens."""
        length = batch.ids_BS.shape[1]
        is_cut = row_share_of(self.model) is not None or hidden_BSH.shape[1] == length
        return hidden_BSH if is_cut else hidden_BSH[:, :length]

    def _actions(self, schedule: Callable[..., Schedule], micro_batches: int) -> tuple[Action, ...]:
        """Return what this stage does."""
        actions = schedule(stages=self.cut.stages, virtual=self.cut.virtual, micro_batches=micro_batches)
        return actions[self.mesh.index("pp")]

    def _tell(self, micro_batches: int) -> None:
        """Log the cut and the bubble, once for each number of micro-batches."""
        if self.mesh.is_main and micro_batches not in self._told:
            self._told.add(micro_batches)
            text = "pipeline: layers %s on %d stages; with %d micro-batches a step they wait %.0f %% of their time"
            bubble = bubble_fraction(self.cut, micro_batches)
            _log.info(text, self.cut, self.cut.stages, micro_batches, 100 * bubble)

    def _sum_tied_gradients(self) -> None:
        """Give first and last stage the sum of their gradients of what both hold."""
        for name, parameter in self.model.named_parameters():
            if self.cut.is_shared(name) and not parameter.stop_gradient:
                gradient = parameter.grad
                assert gradient is not None, "embedding and head take part in every step"
                parameter.grad = all_reduce(gradient, self.mesh.ends)

    def _sum_prefix_gradients(self) -> None:
        """Give all stages the sum of their gradients of a prefix: each holds the whole of it, and sees its layers'."""
        for parameter in () if self.model.prefix is None else self.model.prefix.parameters():
            gradient = paddle.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = all_reduce(gradient, self.mesh.group("pp"))

    def _of_last_stage(self, value: Any, what: str) -> Any:
        """Return the last stage's plain value on all stages."""
        wire = self.mesh.group("pp").wire
        return value if wire is None else wire.exchange_json(value, what)[-1]


def seed_section(seed: int, position: int, section: int, share: int = 0) -> None:
    """Seed Paddle's generator for one micro-batch in one section, whatever the stage did before.

    Args:
        seed: the user's ``--seed``.
        position: global position of the micro-batch's first sample.
        section: of the model; the others draw other numbers.
        share: of the rows, where ranks share them.
    """
    entropy = [seed, position + 1, section, *([share] if share else [])]
    paddle.seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
