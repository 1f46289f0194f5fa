"""How likely a model holds given tokens to be, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..data.collate import collate
from ..data.sample import IGNORED
from ..engine.runner import inference
from ..ops import token_scores
from ..trainer.inputs import to_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..causal_lm import CausalLM
    from ..data.sample import Sample

CHUNK_TOKENS = 1024
"""Tokens whose logits are held at once."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of the labels of one sample."""

    log_probability: float
    """Summed over the labels, in nats."""
    num_correct: int
    """Labels that are the likeliest token."""
    num_tokens: int
    """Labels."""


def score_samples(
    model: CausalLM,
    samples: Sequence[Sample],
    *,
    batch_size: int,
    pad_id: int,
    advance: Callable[[float], None] = lambda _: None,
) -> list[Likelihood]:
    """Return the likelihood of each sample's labels, in the order of the samples.

    Args:
        model: is put into evaluation mode and back.
        samples: of any lengths; they are computed longest first, so that too little memory shows at once, and those
            that differ in their labels only (the letters of a question's options) are computed once.
        batch_size: samples computed together; changes the speed only.
        pad_id: fills rows on the right.
        advance: told how many samples are done.
    """
    alike: dict[bytes, list[int]] = {}
    for place, sample in enumerate(samples):
        alike.setdefault(sample.ids.tobytes(), []).append(place)
    longest_first = sorted(alike.values(), key=lambda places: (-len(samples[places[0]].ids), places))
    found: dict[int, Likelihood] = {}
    with inference(model):
        for start in range(0, len(longest_first), batch_size):
            rows = longest_first[start : start + batch_size]
            scores = _score(model, [[samples[place] for place in places] for places in rows], pad_id)
            done = [place for places in rows for place in places]
            found.update(zip(done, scores, strict=True))
            advance(len(done))
    return [found[place] for place in range(len(samples))]


def _score(model: CausalLM, rows: Sequence[Sequence[Sample]], pad_id: int) -> list[Likelihood]:
    """Score rows of samples that differ in their labels only; return the samples' likelihoods, one after the other."""
    batch = collate([row[0] for row in rows], model.config, pad_id)
    inputs = to_inputs(batch, model.config)
    hidden_BSH = model(inputs.ids_BS, inputs.positions, inputs.mask)
    hidden_TH = hidden_BSH.reshape([-1, hidden_BSH.shape[-1]])
    length = batch.ids_BS.shape[1]
    asked = [
        (row * length + np.flatnonzero(sample.labels != IGNORED), sample.labels[sample.labels != IGNORED])
        for row, alike in enumerate(rows)
        for sample in alike
    ]
    at_T, labels_T = (np.concatenate(parts) for parts in zip(*asked, strict=True))
    owner_T = np.repeat(np.arange(len(asked)), [len(labels) for _, labels in asked])
    losses_T, correct_T = np.zeros(len(at_T)), np.zeros(len(at_T), dtype=bool)
    for first in range(0, len(at_T), CHUNK_TOKENS):
        chunk = slice(first, first + CHUNK_TOKENS)
        hidden = paddle.gather(hidden_TH, paddle.to_tensor(at_T[chunk]))
        losses, correct = token_scores(hidden, model.head, paddle.to_tensor(labels_T[chunk]))
        losses_T[chunk], correct_T[chunk] = losses.numpy(), correct.numpy()
    sums, rights, counts = (
        np.bincount(owner_T, weights=weights, minlength=len(asked)) for weights in (losses_T, correct_T, None)
    )
    return [Likelihood(-float(sums[one]), int(rights[one]), int(counts[one])) for one in range(len(asked))]
