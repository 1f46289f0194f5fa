"""What training minimizes: a loss summed over the things it is averaged over, and what evaluation measures of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from ..ops import linear_cross_entropy
from .evaluate import score_tokens
from .inputs import to_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch


class Score(Protocol):
    """Figures of evaluated samples: a dataclass of sums or lists, all of them empty by default."""

    def plus(self, other: Self) -> Self:
        """Return the figures of both."""

    def metrics(self) -> dict[str, float]:
        """Return what ``metrics.jsonl`` has, each name with ``eval_`` before it."""


class Objective(Protocol):
    """A loss that is a mean over the things of a global batch: tokens, or pairs of answers.

    How a global batch is cut into micro-batches and among ranks must not change it: what depends on the batch as a
    whole is found out in ``prepare``.
    """

    def count(self, batch: Batch) -> int:
        """Return the things that the loss is averaged over."""

    def prepare(
        self, model: CausalLM, batches: Sequence[Batch], add_up: Callable[[Sequence[float]], list[float]]
    ) -> None:
        """Look at all micro-batches of a step before the first one is trained on.

        Args:
            model: as it is before the step.
            batches: of this rank.
            add_up: sums numbers over all ranks that see different samples; every rank must call it as often.
        """

    def loss_sum(self, model: CausalLM, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        """Return the summed loss of a micro-batch, 0-d float32, and sums of other figures by name."""

    def score(self, model: CausalLM, batch: Batch) -> Any:
        """Return the ``Score`` of one batch; the model is in evaluation mode, and no gradients are recorded."""


class NextToken:
    """Cross-entropy of the next token, averaged over the supervised tokens (``Objective``)."""

    def count(self, batch: Batch) -> int:
        return batch.num_supervised

    def prepare(
        self, model: CausalLM, batches: Sequence[Batch], add_up: Callable[[Sequence[float]], list[float]]
    ) -> None:
        """Nothing depends on the whole of a batch."""

    def loss_sum(self, model: CausalLM, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        inputs = to_inputs(batch, model.config)
        hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
        return linear_cross_entropy(hidden_BSH, model.head, inputs.labels_BS)[0], {}

    def score(self, model: CausalLM, batch: Batch) -> Any:
        return score_tokens(model, batch)
