"""Loss, perplexity and token accuracy over a whole source."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import paddle
import paddle.nn.functional as F

from ..data.collate import collate
from ..data.sample import IGNORED
from ..parallel.mesh import Mesh
from ..parallel.plan import DATA
from .inputs import to_inputs
from .scalar import to_float

if TYPE_CHECKING:
    from collections.abc import Callable

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch, SampleSource

CHUNK_TOKENS = 1024
"""Supervised tokens whose logits are held at once."""


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

    def plus(self, loss_sum: float, num_correct: int, num_supervised: int, num_samples: int) -> Evaluation:
        """Return the evaluation with one batch more."""
        return Evaluation(
            self.loss_sum + loss_sum,
            self.num_correct + num_correct,
            self.num_supervised + num_supervised,
            self.num_samples + num_samples,
        )


def evaluate(
    model: CausalLM,
    source: SampleSource,
    *,
    batch_size: int,
    pad_id: int,
    max_batches: int = -1,
    mesh: Mesh | None = None,
    stopped: Callable[[], bool] = lambda: False,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation | None:
    """Go once over the source, or over its first ``max_batches`` batches, each data rank over its share of them.

    Args:
        model: is put into evaluation mode (no dropout) and back into the mode it was in.
        source: evaluation samples.
        batch_size: samples computed at once; changes the speed only.
        pad_id: fills rows on the right.
        max_batches: -1 for all.
        mesh: of this run; every rank must call this, and all get the same result.
        stopped: asked before every batch; True gives up, and must be the same on every rank.
        advance: told the samples that all ranks together have finished.

    Returns:
        The sums, or ``None`` after giving up.
    """
    mesh = mesh or Mesh()
    num_samples = count_samples(source, batch_size, max_batches)
    was_training = model.training
    model.eval()
    total = Evaluation()
    try:
        with paddle.no_grad():
            for first in range(0, num_samples, batch_size * mesh.data_world):
                if stopped():
                    return None
                start = min(first + mesh.data_rank * batch_size, num_samples)
                mine = range(start, min(start + batch_size, num_samples))
                # Ranks that share layers need each other even where one has no sample left: it looks at one again.
                positions = mine or range(1)
                batch = collate([source.sample(position) for position in positions], model.config, pad_id)
                scores = _score(model, batch)
                if mine:
                    total = total.plus(*scores, len(mine))
                advance(min(batch_size * mesh.data_world, num_samples - first))
    finally:
        if was_training:
            model.train()
    return _sum(total, mesh)


def _sum(own: Evaluation, mesh: Mesh) -> Evaluation:
    """Return the sums over the ranks that saw different samples."""
    wire = mesh.group(*DATA).wire
    if wire is None:
        return own
    total = Evaluation()
    for sums in wire.exchange_json(astuple(own), "the end of an evaluation"):
        total = total.plus(*sums)
    return total


def count_samples(source: SampleSource, batch_size: int, max_batches: int) -> int:
    """Return the samples of one evaluation."""
    return source.epoch_size if max_batches < 0 else min(source.epoch_size, max_batches * batch_size)


def _score(model: CausalLM, batch: Batch) -> tuple[float, int, int]:
    """Return (loss sum, correct tokens, supervised tokens) of one batch."""
    inputs = to_inputs(batch, model.config)
    hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
    rows_T = (batch.labels_BS.reshape(-1) != IGNORED).nonzero()[0]
    loss_sum, num_correct = 0.0, 0
    for first in range(0, len(rows_T), CHUNK_TOKENS):
        chunk_T = paddle.to_tensor(rows_T[first : first + CHUNK_TOKENS])
        hidden_TH = paddle.gather(hidden_BSH.reshape([-1, hidden_BSH.shape[-1]]), chunk_T)
        labels_T = paddle.gather(inputs.labels_BS.reshape([-1]), chunk_T)
        losses, correct = _score_tokens(model.head(hidden_TH).astype("float32"), labels_T)
        loss_sum, num_correct = loss_sum + losses, num_correct + correct
    return loss_sum, num_correct, len(rows_T)


def _score_tokens(logits_TV: Tensor, labels_T: Tensor) -> tuple[float, int]:
    losses_T = F.cross_entropy(logits_TV, labels_T, reduction="none")
    correct = (logits_TV.argmax(axis=-1) == labels_T).sum()
    return to_float(losses_T.astype("float64").sum()), int(to_float(correct))
