"""One optimizer step: forward and backward of each micro-batch, the guard, the update."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from .diagnose import first_non_finite_in_pipeline, first_non_finite_layer, is_finite
from .inputs import to_inputs
from .passes import WholeModel, final_hidden
from .randomness import seed_all
from .scalar import to_float

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..data.sample import Batch
    from ..parallel.pipeline.passes import Pipeline
    from .agreement import Agreement
    from .embedding_noise import EmbeddingNoise
    from .objective import Loss, Objective
    from .optimizer import AdamW
    from .passes import Passes
    from .precision import Precision


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Samples that are computed at once, and where they stand in the global order."""

    batch: Batch
    position: int
    """Global position of the first sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step did."""

    loss: float
    """Mean over the tokens (or pairs) that the objective counts in the whole global batch, in nats."""
    grad_norm: float
    """Global 2-norm before clipping."""
    count: int
    """Tokens (or pairs) that the loss is a mean over."""
    num_supervised: int
    num_tokens: int = 0
    """Real tokens of the whole global batch: all but padding."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else the objective measures, as means over ``count``."""
    fault: str = ""
    """Why the parameters were left unchanged; empty where they were updated."""


class TrainStep:
    """Turns micro-batches into one update.

    Each micro-batch's summed loss is divided by what the objective counts in the *whole* global batch, over all ranks
    (supervised tokens, or pairs of answers), so that how it is cut into micro-batches and among ranks does not change
    the training. A step whose loss or gradients are not finite, on whichever rank, changes nothing: no parameter, no
    moment, no count of updates.
    """

    def __init__(
        self, model: CausalLM, optimizer: AdamW, precision: Precision, agreement: Agreement, objective: Objective,
        *, seed: int, noise: EmbeddingNoise | None = None, pipeline: Pipeline | None = None,
    ) -> None:  # fmt: skip
        """Put the parts of a step together.

        Args:
            model: of this rank.
            optimizer: of what this rank holds.
            precision: that is computed in.
            agreement: with the other ranks.
            objective: what is minimized.
            seed: of the random numbers in training.
            noise: on embedded tokens.
            pipeline: that ``model`` is a stage of.
        """
        self.model = model
        self.optimizer = optimizer
        self.holding = optimizer.holding
        self.precision = precision
        self.agreement = agreement
        self.objective = objective
        self.seed = seed
        self.noise = noise
        self.pipeline = pipeline
        self._passes: Passes = pipeline or WholeModel(model)

    def run(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepResult:
        """Do one step on this rank's micro-batches and return its loss, gradient norm, and fault if there was one."""
        batches = [micro.batch for micro in micro_batches]
        own = [
            sum(self.objective.count(batch) for batch in batches),
            sum(batch.num_supervised for batch in batches),
            sum(int((batch.segments_BS > 0).sum()) for batch in batches),
        ]
        count, num_supervised, num_tokens = (int(total) for total in self.agreement.add_up(own))
        with self.precision.autocast():
            losses = self.objective.losses(self._passes, batches, self.agreement.add_up)
        share, sums = self._backward_all(micro_batches, losses, max(1, count))
        self.holding.reduce()
        loss, norm = self.agreement.loss_and_norm(share, self.holding.gradients())
        norm /= self.precision.scale.value
        fault = self._fault(micro_batches, count, loss, norm)
        if fault:
            self.holding.drop_gradients()
        else:
            self._update(learning_rate, norm)
        return StepResult(
            loss=loss, grad_norm=norm, count=count, num_supervised=num_supervised, num_tokens=num_tokens,
            figures=self._means(sums, count), fault=fault,
        )  # fmt: skip

    def _backward_all(
        self, micro_batches: Sequence[MicroBatch], losses: Sequence[Loss], count: int
    ) -> tuple[float, Mapping[str, float]]:
        """Add the gradients of all micro-batches; return their share of the loss, and the sums of other figures."""
        scale = self.precision.scale.value
        if self.pipeline is not None:
            return self.pipeline.backward(micro_batches, losses, count=count, scale=scale)
        share, sums = 0.0, Counter[str]()
        for micro, loss in zip(micro_batches, losses, strict=True):
            self._begin(micro)
            with self.precision.autocast():
                loss_sum, figures = loss(final_hidden(self.model, micro.batch))
            sums.update(figures)
            self.holding.backward(loss_sum * (scale / count), is_last=micro is micro_batches[-1])
            share += to_float(loss_sum) / count
        return share, sums

    def _means(self, sums: Mapping[str, float], count: int) -> dict[str, float]:
        """Return the objective's other figures over the whole global batch; it has the same ones on every rank."""
        totals = self.agreement.add_up(list(sums.values())) if sums else []
        return {name: total / max(1, count) for name, total in zip(sums, totals, strict=True)}

    def _fault(self, micro_batches: Sequence[MicroBatch], count: int, loss: float, norm: float) -> str:
        """Return why there is no update, the same on all ranks, or an empty text."""
        if not count:
            return "no token is supervised"
        if not math.isfinite(loss):
            # On all micro-batches, since ranks that share layers must go through as many as the others.
            layers = [self._first_non_finite_layer(micro) for micro in micro_batches]
            found = next((f"{layer}{self.agreement.signature}" for layer in layers if layer), "")
            layer = self.agreement.first_said(found) or "the sum of losses"
            return f"the loss is {loss}; the first output that is not finite is that of {layer}"
        if not math.isfinite(norm):
            said = ", ".join(self._non_finite_gradients())
            return f"gradients are not finite: {self.agreement.first_said(said) or 'their norm'}"
        return ""

    def _begin(self, micro: MicroBatch) -> None:
        """Make the random numbers of a micro-batch those of its place in the global order."""
        seed_all(self.seed, micro.position, self.agreement.mesh.index("sep"))
        if self.noise is not None:
            self.noise.expect(micro.batch, micro.position)

    def _first_non_finite_layer(self, micro: MicroBatch) -> str:
        self._begin(micro)
        with self.precision.autocast():
            if self.pipeline is None:
                layer = first_non_finite_layer(self.model, to_inputs(micro.batch, self.model.config))
            else:
                layer = first_non_finite_in_pipeline(self.pipeline, micro.batch)
        self.holding.rest()
        return layer

    def _non_finite_gradients(self) -> list[str]:
        """Return the first three parameters whose gradient has inf or nan."""
        bad = (name for name, gradient in self.holding.gradients().items() if not is_finite(gradient))
        return list(islice(bad, 3))

    def _update(self, learning_rate: float, norm: float) -> None:
        limit = self.optimizer.options.max_grad_norm
        clip = min(1.0, limit / (norm + 1e-6)) if limit > 0 else 1.0
        self.optimizer.update(learning_rate=learning_rate, gradient_scale=clip / self.precision.scale.value)
        self.holding.publish()
        self.precision.scale.succeeded()
