"""One optimizer step: forward and backward of each micro-batch, the guard, the update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..ops import linear_cross_entropy
from .diagnose import first_non_finite_layer, is_finite
from .inputs import to_inputs
from .randomness import seed_all
from .scalar import to_float

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..data.sample import Batch
    from .agreement import Agreement
    from .optimizer import AdamW
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
    """Mean over the supervised tokens of the whole global batch, in nats."""
    grad_norm: float
    """Global 2-norm before clipping."""
    num_supervised: int
    num_tokens: int = 0
    """Real tokens of the whole global batch: all but padding."""
    fault: str = ""
    """Why the parameters were left unchanged; empty where they were updated."""


class TrainStep:
    """Turns micro-batches into one update.

    Each micro-batch's summed loss is divided by the supervised tokens of the *whole* global batch, over all ranks, so
    that how it is cut into micro-batches and among ranks does not change the training. A step whose loss or gradients
    are not finite, on whichever rank, changes nothing: no parameter, no moment, no count of updates.
    """

    def __init__(
        self, model: CausalLM, optimizer: AdamW, precision: Precision, agreement: Agreement, *, seed: int
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.holding = optimizer.holding
        self.precision = precision
        self.agreement = agreement
        self.seed = seed

    def run(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> StepResult:
        """Do one step on this rank's micro-batches and return its loss, gradient norm, and fault if there was one."""
        supervised = sum(micro.batch.num_supervised for micro in micro_batches)
        tokens = sum(int((micro.batch.segments_BS > 0).sum()) for micro in micro_batches)
        num_supervised, num_tokens = self.agreement.counts(supervised, tokens)
        share = sum(self._backward(micro, max(1, num_supervised)) for micro in micro_batches)
        self.holding.reduce()
        loss, norm = self.agreement.loss_and_norm(share, self.holding.gradients())
        norm /= self.precision.scale.value
        fault = self._fault(micro_batches, num_supervised, loss, norm)
        if fault:
            self.holding.drop_gradients()
        else:
            self._update(learning_rate, norm)
        return StepResult(loss=loss, grad_norm=norm, num_supervised=num_supervised, num_tokens=num_tokens, fault=fault)

    def _backward(self, micro: MicroBatch, num_supervised: int) -> float:
        """Add the gradients of one micro-batch; return its share of the loss."""
        seed_all(self.seed, micro.position)
        inputs = to_inputs(micro.batch, self.model.config)
        with self.precision.autocast():
            hidden_BSH = self.model(inputs.ids_BS, inputs.positions, inputs.mask)
            loss_sum, _ = linear_cross_entropy(hidden_BSH, self.model.head, inputs.labels_BS)
        self.holding.backward(loss_sum * (self.precision.scale.value / num_supervised))
        return to_float(loss_sum) / num_supervised

    def _fault(self, micro_batches: Sequence[MicroBatch], num_supervised: int, loss: float, norm: float) -> str:
        """Return why there is no update, the same on all ranks, or an empty text."""
        if not num_supervised:
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

    def _first_non_finite_layer(self, micro: MicroBatch) -> str:
        seed_all(self.seed, micro.position)
        with self.precision.autocast():
            layer = first_non_finite_layer(self.model, to_inputs(micro.batch, self.model.config))
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
