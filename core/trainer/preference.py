"""Preference tuning as an objective: the model learns to set one answer above another, against a frozen reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from ..data.sample import IGNORED
from ..ops import token_losses
from .inputs import to_inputs
from .preference_loss import Baseline, PreferenceLoss
from .scalar import to_float

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch

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
        self._baseline = Baseline()

    def count(self, batch: Batch) -> int:
        """Return the pairs."""
        return int(batch.segments_BS.max(axis=1).sum()) // 2

    def prepare(
        self, model: CausalLM, batches: Sequence[Batch], add_up: Callable[[Sequence[float]], list[float]]
    ) -> None:
        """Turn dropout off, and find out how far the model has moved over the whole batch where the loss asks."""
        model.eval()
        if not self.loss.needs_baseline:
            return
        with paddle.no_grad():
            sums_2 = sum((self._ratios(model, batch).numpy().sum(axis=0) for batch in batches), np.zeros(2))
        own = [*sums_2.tolist(), sum(self.count(batch) for batch in batches)]
        chosen, rejected, pairs = add_up(own)
        self._baseline = _baseline(chosen, rejected, max(1, pairs))

    def loss_sum(self, model: CausalLM, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        """Return the summed loss, and sums of rewards, of right choices and of margins."""
        ratios_P2 = self._ratios(model, batch)
        losses_P = self.loss.losses(ratios_P2, self._baseline)
        return losses_P.sum(), _rewards(self.loss.beta * ratios_P2.detach().numpy())

    def score(self, model: CausalLM, batch: Batch) -> PreferenceScore:
        """Return what the metrics of one batch are made from."""
        chosen, rejected = self._ratios(model, batch).numpy().T.tolist()
        return PreferenceScore(astuple(self.loss), chosen, rejected)

    def _ratios(self, model: CausalLM, batch: Batch) -> Tensor:
        """Return the log-probabilities of answers, less those of the reference: float32 [P, 2]."""
        own_P2 = answer_scores(model, batch, averaged=self.loss.is_averaged)
        if self.reference is None:
            return own_P2.astype("float32")
        with self.reference(model) as reference, paddle.no_grad():
            others_P2 = answer_scores(reference, batch, averaged=self.loss.is_averaged)
        return (own_P2 - others_P2).astype("float32")


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


def answer_scores(model: CausalLM, batch: Batch, *, averaged: bool) -> Tensor:
    """Return the log-probability of each answer in nats, float64 [P, 2]: chosen, rejected.

    Summed in float64: two long sums are about to be subtracted from each other.

    Args:
        model: computes it, in the mode it is in.
        batch: rows of pairs.
        averaged: the mean over an answer's tokens instead of their sum.
    """
    inputs = to_inputs(batch, model.config)
    hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
    rows_T, columns_T = (batch.labels_BS != IGNORED).nonzero()
    places_T = paddle.to_tensor(rows_T * batch.labels_BS.shape[1] + columns_T)
    hidden_TH = paddle.gather(hidden_BSH.reshape([-1, hidden_BSH.shape[-1]]), places_T)
    losses_T = token_losses(hidden_TH, model.head, paddle.gather(inputs.labels_BS.reshape([-1]), places_T))
    segments_B = batch.segments_BS.max(axis=1)
    answers_T = (segments_B.cumsum() - segments_B)[rows_T] + batch.segments_BS[rows_T, columns_T] - 1
    num_answers = int(segments_B.sum())
    zeros_A = paddle.zeros([num_answers], dtype="float64")
    sums_A = paddle.scatter_nd_add(zeros_A, paddle.to_tensor(answers_T).unsqueeze(-1), -losses_T.astype("float64"))
    if averaged:
        sums_A = sums_A / paddle.to_tensor(np.bincount(answers_T, minlength=num_answers).astype(np.float64))
    return sums_A.reshape([-1, 2])


def frozen(copy: CausalLM) -> Reference:
    """Compare with a model of its own: that which training starts from, never changed."""
    copy.eval()
    for parameter in copy.parameters():
        parameter.stop_gradient = True

    @contextmanager
    def lend(_: CausalLM) -> Iterator[CausalLM]:
        yield copy

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
