"""Loss, perplexity and token accuracy over a whole source."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import paddle

from ..data.collate import collate
from ..data.sample import IGNORED
from ..ops import token_scores
from ..parallel.mesh import Mesh
from ..parallel.plan import DATA
from ..parallel.sep.model import own_tokens, row_share_of
from .passes import WholeModel
from .scalar import to_float

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch, SampleSource
    from ..parallel.pipeline.passes import Pipeline
    from .passes import Passes

CHUNK_TOKENS = 1024
"""Supervised tokens whose logits are held at once."""
BATCHES_A_STAGE = 2
"""That go into a pipeline at once: with two, stages wait a third of the time at the most."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Sums over tokens, so that batch size and padding do not matter."""

    loss_sum: float = 0.0
    num_correct: int = 0
    num_supervised: int = 0
    num_samples: int = 0

    @property
    def loss(self) -> float:
        """Mean over supervised tokens, in nats."""
        return self.loss_sum / max(1, self.num_supervised)

    def metrics(self) -> dict[str, float]:
        """Return the figures by the names that ``metrics.jsonl`` has."""
        return {
            "eval_loss": self.loss,
            "eval_ppl": math.exp(min(self.loss, 700.0)),
            "eval_accuracy": self.num_correct / max(1, self.num_supervised),
            "eval_tokens": self.num_supervised,
        }

    def __str__(self) -> str:
        row = self.metrics()
        return "  ".join(f"{name} {row[name]:.4f}" for name in ("eval_loss", "eval_ppl", "eval_accuracy"))

    def plus(self, other: Evaluation) -> Evaluation:
        """Return the sums of both."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Evaluation(*(one + another for one, another in pairs))


def evaluate(
    model: CausalLM,
    source: SampleSource,
    *,
    batch_size: int,
    pad_id: int,
    max_batches: int = -1,
    score: Callable[[Passes, Sequence[Batch]], Sequence[Any]] | None = None,
    mesh: Mesh | None = None,
    pipeline: Pipeline | None = None,
    stopped: Callable[[], bool] = lambda: False,
    advance: Callable[[int], None] = lambda _: None,
) -> Any:
    """Go once over the source, or over its first ``max_batches`` batches, each data rank over its share of them.

    Args:
        model: is put into evaluation mode (no dropout) and back into the mode it was in.
        source: evaluation samples.
        batch_size: samples computed at once; changes the speed only.
        pad_id: fills rows on the right.
        max_batches: -1 for all.
        score: measures batches (``Objective.score``); by default the loss of the next token.
        mesh: of this run; every rank must call this, and all get the same result.
        pipeline: that ``model`` is a stage of.
        stopped: asked before every batch (in a pipeline, before every few); True gives up, and must be the same on
            every rank.
        advance: told the samples that all ranks together have finished.

    Returns:
        The ``Score`` of all samples (an ``Evaluation`` by default), or ``None`` after giving up.
    """
    mesh = mesh or Mesh()
    num_samples = count_samples(source, batch_size, max_batches)
    was_training = model.training
    model.eval()
    score_all, passes = score or score_batches, pipeline or WholeModel(model)
    rounds = range(0, num_samples, batch_size * mesh.data_world)
    depth = 1 if pipeline is None else BATCHES_A_STAGE * mesh.plan.pp
    total: Any = None
    try:
        with paddle.no_grad():
            for some in (rounds[at : at + depth] for at in range(0, len(rounds), depth)):
                if stopped():
                    return None
                shares = [_share(first, batch_size, num_samples, mesh) for first in some]
                batches = [
                    # Ranks that share layers need each other even where one has no sample left: it looks at one again.
                    collate([source.sample(position) for position in mine or range(1)], model.config, pad_id)
                    for mine in shares
                ]
                for first, mine, found in zip(some, shares, score_all(passes, batches), strict=True):
                    total = total or type(found)()
                    if mine:
                        total = total.plus(found)
                    advance(min(batch_size * mesh.data_world, num_samples - first))
    finally:
        if was_training:
            model.train()
    return _sum(total, mesh)


def _share(first: int, batch_size: int, num_samples: int, mesh: Mesh) -> range:
    """Return the samples that this rank takes of a round that begins at ``first``; none where it has no more."""
    start = min(first + mesh.data_rank * batch_size, num_samples)
    return range(start, min(start + batch_size, num_samples))


def _sum(own: Any, mesh: Mesh) -> Any:
    """Return the sums over the ranks that saw different samples."""
    wire = mesh.group(*DATA).wire
    if wire is None:
        return own
    kind: Any = type(own)
    said = wire.exchange_json(astuple(own), "the end of an evaluation")
    return reduce(kind.plus, (kind(*figures) for figures in said))


def count_samples(source: SampleSource, batch_size: int, max_batches: int) -> int:
    """Return the samples of one evaluation."""
    return source.epoch_size if max_batches < 0 else min(source.epoch_size, max_batches * batch_size)


def score_batches(passes: Passes, batches: Sequence[Batch]) -> list[Evaluation]:
    """Return the sums over each batch, on every stage of a pipeline."""

    def measure(hidden_BSH: Tensor, batch: Batch) -> tuple[float, ...]:
        return astuple(score_hidden(passes.model, hidden_BSH, batch))

    return [
        Evaluation(loss_sum, *(int(count) for count in counts))
        for loss_sum, *counts in passes.forward(batches, measure)
    ]


def score_hidden(model: CausalLM, hidden_BSH: Tensor, batch: Batch) -> Evaluation:
    """Return the sums over one batch, from the hidden states before the head; the same on ranks that share its rows."""
    labels_T = own_tokens(model, paddle.to_tensor(batch.labels_BS), fill=IGNORED).flatten()
    rows_T = (labels_T.numpy() != IGNORED).nonzero()[0]
    hidden_TH = hidden_BSH.reshape([-1, hidden_BSH.shape[-1]])
    loss_sum, num_correct = 0.0, 0
    for first in range(0, len(rows_T), CHUNK_TOKENS):
        chunk_T = paddle.to_tensor(rows_T[first : first + CHUNK_TOKENS])
        chosen_TH, chosen_T = paddle.gather(hidden_TH, chunk_T), paddle.gather(labels_T, chunk_T)
        losses_T, is_correct_T = token_scores(chosen_TH, model.head, chosen_T)
        loss_sum += to_float(losses_T.astype("float64").sum())
        num_correct += int(to_float(is_correct_T.sum()))
    own = [loss_sum, num_correct, len(rows_T)]
    share = row_share_of(model)
    wire = None if share is None else share.group.wire
    said = [own] if wire is None else wire.exchange_json(own, "the sums over a batch")
    loss_sum, num_correct, num_supervised = (sum(column) for column in zip(*said, strict=True))
    return Evaluation(loss_sum, num_correct, num_supervised, len(batch.labels_BS))
