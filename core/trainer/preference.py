"""Preference tuning as an objective: the model learns to set one answer above another, against a frozen reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from ..data.sample import IGNORED
from ..ops import token_losses
from ..parallel.sep.model import counted_once, own_tokens, sum_of_rows
from .preference_loss import Baseline, PreferenceLoss
from .scalar import to_float

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch
    from .objective import Loss
    from .passes import Passes

Reference = Callable[["CausalLM"], "AbstractContextManager[CausalLM]"]
"""Given the model that is trained, lends the one it is compared with."""


class Preference:
    """A loss over pairs of answers, averaged over the pairs (``Objective``).

    A row holds pairs: segments 1 and 2 are the chosen and the rejected answer of the first pair, each with its prompt.
    Dropout is off throughout, so that model and reference agree before the first step.
    """

    def __init__(self, loss: PreferenceLoss, reference: Reference | None) -> None:
        """Compare with ``reference``; ``None`` for a loss that does without one."""
        self.loss = loss
        self.reference = reference

    def count(self, batch: Batch) -> int:
        """Return the pairs."""
        return int(batch.segments_BS.max(axis=1).sum()) // 2

    def losses(
        self, passes: Passes, batches: Sequence[Batch], add_up: Callable[[Sequence[float]], list[float]]
    ) -> list[Loss]:
        """Turn dropout off, ask the reference, find out how far the model has moved over the whole batch where the
        loss asks for that, and return the losses: with sums of rewards, of right choices and of margins."""
        passes.model.eval()
        references = self._references(passes, batches)
        baseline = Baseline()
        if self.loss.needs_baseline:
            ratios = self._ratios(passes, batches, references)
            sums_2 = sum((ratios_P2.sum(axis=0) for ratios_P2 in ratios), np.zeros(2))
            chosen, rejected, pairs = add_up([*sums_2.tolist(), sum(self.count(batch) for batch in batches)])
            baseline = _baseline(chosen, rejected, max(1, pairs))
        return [
            partial(self._loss, passes.model, batch, reference_P2, baseline)
            for batch, reference_P2 in zip(batches, references, strict=True)
        ]

    def score(self, passes: Passes, batches: Sequence[Batch]) -> list[PreferenceScore]:
        """Return what the metrics of each batch are made from."""
        ratios = self._ratios(passes, batches, self._references(passes, batches))
        return [PreferenceScore(astuple(self.loss), *ratios_P2.T.tolist()) for ratios_P2 in ratios]

    def _loss(
        self, model: CausalLM, batch: Batch, reference_P2: np.ndarray, baseline: Baseline, hidden_BSH: Tensor
    ) -> tuple[Tensor, Mapping[str, float]]:
        own_P2 = answer_scores(model, hidden_BSH, batch, averaged=self.loss.is_averaged)
        ratios_P2 = (own_P2 - paddle.to_tensor(reference_P2)).astype("float32")
        losses_P = self.loss.losses(ratios_P2, baseline)
        return counted_once(model, losses_P.sum()), _rewards(self.loss.beta * ratios_P2.detach().numpy())

    def _ratios(
        self, passes: Passes, batches: Sequence[Batch], references: Sequence[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yield the log-probabilities of answers, less those of the reference: float32 [P, 2] for each batch."""
        for own_P2, reference_P2 in zip(self._ask(passes, batches), references, strict=True):
            yield (own_P2 - reference_P2).astype(np.float32)

    def _references(self, passes: Passes, batches: Sequence[Batch]) -> list[np.ndarray]:
        """Return what the reference says of each batch, float64 [P, 2]; zeros without one."""
        if self.reference is None:
            return [np.zeros((self.count(batch), 2)) for batch in batches]
        with self.reference(passes.model) as reference:
            return self._ask(passes.through(reference), batches)

    def _ask(self, passes: Passes, batches: Sequence[Batch]) -> list[np.ndarray]:
        """Return the log-probability of each answer of each batch, float64 [P, 2]."""

        def measure(hidden_BSH: Tensor, batch: Batch) -> list[float]:
            scores_P2 = answer_scores(passes.model, hidden_BSH, batch, averaged=self.loss.is_averaged)
            return [float(score) for score in scores_P2.numpy().reshape(-1)]

        return [np.array(said, dtype=np.float64).reshape(-1, 2) for said in passes.forward(batches, measure)]


@dataclass(frozen=True, slots=True)
class PreferenceScore:
    """The pairs that were evaluated (``Score``): not sums, since a loss may depend on all pairs at once."""

    constants: Sequence[Any] = ()
    """Of the loss."""
    chosen: Sequence[float] = ()
    """Log-ratios of the chosen answers."""
    rejected: Sequence[float] = ()

    def plus(self, other: PreferenceScore) -> PreferenceScore:
        """Return the pairs of both."""
        return PreferenceScore(
            self.constants or other.constants, [*self.chosen, *other.chosen], [*self.rejected, *other.rejected]
        )

    @property
    def loss(self) -> float:
        """Mean over the pairs."""
        names = PreferenceLoss.__dataclass_fields__
        loss = PreferenceLoss(**dict(zip(names, self.constants, strict=True)))
        baseline = _baseline(sum(self.chosen), sum(self.rejected), len(self.chosen))
        with paddle.no_grad():
            losses_P = loss.losses(paddle.to_tensor([self.chosen, self.rejected]).T, baseline)
            return to_float(losses_P.astype("float64").mean())

    def metrics(self) -> dict[str, float]:
        """Return the figures by the names that ``metrics.jsonl`` has."""
        pairs, beta = len(self.chosen), self.constants[1]
        sums = _rewards(beta * np.array([self.chosen, self.rejected]).T)
        return {"eval_loss": self.loss, **{f"eval_{name}": total / pairs for name, total in sums.items()}}

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in self.metrics().items())


def answer_scores(model: CausalLM, hidden_BSH: Tensor, batch: Batch, *, averaged: bool) -> Tensor:
    """Return the log-probability of each answer in nats, float64 [P, 2]: chosen, rejected.

    Summed in float64: two long sums are about to be subtracted from each other.

    Args:
        model: whose head is asked.
        hidden_BSH: the final hidden states of the batch, or of this rank's tokens of it.
        batch: rows of pairs.
        averaged: the mean over an answer's tokens instead of their sum.
    """
    segments_B = batch.segments_BS.max(axis=1)
    num_answers = int(segments_B.sum())
    # Which answer each token of the batch belongs to; of its padding, none.
    answers_BS = (segments_B.cumsum() - segments_B)[:, None] + batch.segments_BS - 1
    labels_L, answers_L = (
        own_tokens(model, paddle.to_tensor(x_BS), fill=IGNORED).flatten().numpy()
        for x_BS in (batch.labels_BS, np.where(batch.labels_BS != IGNORED, answers_BS, IGNORED))
    )
    is_counted_L = labels_L != IGNORED
    if not is_counted_L.any():  # then the first token is looked at, and counts nothing: all ranks take the same steps
        labels_L[0] = answers_L[0] = 0
    places_T = (labels_L != IGNORED).nonzero()[0]
    hidden_TH = paddle.gather(hidden_BSH.reshape([-1, hidden_BSH.shape[-1]]), paddle.to_tensor(places_T))
    losses_T = token_losses(hidden_TH, model.head, paddle.to_tensor(labels_L[places_T])).astype("float64")
    scores_T = losses_T * paddle.to_tensor(-is_counted_L[places_T].astype(np.float64))
    zeros_A, indices_T1 = paddle.zeros([num_answers], "float64"), paddle.to_tensor(answers_L[places_T]).unsqueeze(-1)
    sums_A = sum_of_rows(model, paddle.scatter_nd_add(zeros_A, indices_T1, scores_T))
    if averaged:
        counts_A = np.bincount(answers_BS[batch.labels_BS != IGNORED], minlength=num_answers)
        sums_A = sums_A / paddle.to_tensor(counts_A.astype(np.float64))
    return sums_A.reshape([-1, 2])


def frozen(copy: CausalLM, rest: Callable[[], None] = lambda: None) -> Reference:
    """Compare with a model of its own: that which training starts from, never changed.

    Args:
        copy: of that model.
        rest: is called when it has answered (``sharding.hold_frozen``).
    """
    copy.eval()
    for parameter in copy.parameters():
        parameter.stop_gradient = True

    @contextmanager
    def lend(_: CausalLM) -> Iterator[CausalLM]:
        try:
            yield copy
        finally:
            rest()

    return lend


def _baseline(chosen: float, rejected: float, pairs: float) -> Baseline:
    return Baseline(max(0.0, chosen / pairs), max(0.0, rejected / pairs))


def _rewards(rewards_P2: np.ndarray) -> dict[str, float]:
    """Return sums over the pairs. Source: Rafailov et al. 2023, arXiv:2305.18290, section 4 (implicit reward)."""
    margin_P = rewards_P2[:, 0] - rewards_P2[:, 1]
    return {
        "rewards_chosen": float(rewards_P2[:, 0].sum()),
        "rewards_rejected": float(rewards_P2[:, 1].sum()),
        "rewards_accuracy": float((margin_P > 0).sum()),
        "rewards_margin": float(margin_P.sum()),
    }
