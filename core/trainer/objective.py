"""What training minimizes: a loss summed over the things it is averaged over, and what evaluation measures of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import paddle

from ..data.sample import IGNORED
from ..ops import linear_cross_entropy
from ..parallel.sep.model import own_tokens
from .evaluate import score_batches

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch
    from .passes import Passes

Loss = Callable[["Tensor"], tuple["Tensor", Mapping[str, float]]]
"""Given the final hidden states [B, S, H] of a micro-batch, returns its summed loss, 0-d float32, and sums of other
figures by name."""


class Score(Protocol):
    """Figures of evaluated samples: a dataclass of sums or lists, all of them empty by default."""

    def plus(self, other: Self) -> Self:
        """Return the figures of both."""

    def metrics(self) -> dict[str, float]:
        """Return what ``metrics.jsonl`` has, each name with ``eval_`` before it."""


class Objective(Protocol):
    """A loss that is a mean over the things of a global batch: tokens, or pairs of answers.

    How a global batch is cut into micro-batches and among ranks must not change it: what depends on the batch as a
    whole, and what another model says of it, is found out before the first micro-batch is trained on.
    """

    def count(self, batch: Batch) -> int:
        """Return the things that the loss is averaged over."""

    def losses(
        self, passes: Passes, batches: Sequence[Batch], add_up: Callable[[Sequence[float]], list[float]]
    ) -> list[Loss]:
        """Look at all micro-batches of a step, and return the loss of each.

        Args:
            passes: through the model as it is before the step.
            batches: of this rank.
            add_up: sums numbers over all ranks that see different samples; every rank must call it as often.
        """

    def score(self, passes: Passes, batches: Sequence[Batch]) -> Sequence[Any]:
        """Return the ``Score`` of each batch; the model is in evaluation mode, and no gradients are recorded."""


class NextToken:
    """Cross-entropy of the next token, averaged over the supervised tokens (``Objective``)."""

    def count(self, batch: Batch) -> int:
        return batch.num_supervised

    def losses(
        self, passes: Passes, batches: Sequence[Batch], add_up: Callable[[Sequence[float]], list[float]]
    ) -> list[Loss]:
        """Return the losses; nothing depends on the whole of a global batch."""
        return [partial(_next_token_loss, passes.model, batch) for batch in batches]

    def score(self, passes: Passes, batches: Sequence[Batch]) -> Sequence[Any]:
        return score_batches(passes, batches)


def _next_token_loss(model: CausalLM, batch: Batch, hidden_BSH: Tensor) -> tuple[Tensor, Mapping[str, float]]:
    labels_BS = own_tokens(model, paddle.to_tensor(batch.labels_BS), fill=IGNORED)
    return linear_cross_entropy(hidden_BSH, model.head, labels_BS)[0], {}
