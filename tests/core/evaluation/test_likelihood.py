"""Likelihoods of given tokens, against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_run.core.data.encoding import to_sample
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.evaluation import likelihood
from llm_run.core.evaluation.likelihood import score_samples

LENGTHS = (9, 30, 4, 17, 9)


def drawn(size: int, prompt: int) -> Sample:
    ids = np.random.default_rng(size).integers(4, 380, [size])
    return to_sample(ids, np.arange(size) >= prompt)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_sums_and_hits_are_those_of_transformers(peers: Any, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK_TOKENS", 7)
    samples = [drawn(size, 3) for size in LENGTHS]
    done: list[float] = []
    found = score_samples(peers.model, samples, batch_size=batch_size, pad_id=0, advance=done.append)
    assert sum(done) == len(samples)
    for size, one in zip(LENGTHS, found, strict=True):
        ids = np.random.default_rng(size).integers(4, 380, [size]).tolist()
        assert one.log_probability == pytest.approx(peers.log_probabilities(ids)[2:].sum(), rel=1e-5)
        assert one.num_tokens == size - 3
        assert one.num_correct == hits(peers, ids)[2:].sum()


def hits(peers: Any, ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.asarray(peers.theirs(torch.tensor([ids])).logits[0, :-1].argmax(-1).numpy() == np.array(ids[1:]))


def test_samples_that_differ_in_labels_only_are_computed_once(peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base = drawn(12, 12)
    samples = []
    for token in (5, 6, 7):
        labels = np.full(11, IGNORED, dtype=np.int64)
        labels[-1] = token
        samples.append(Sample(base.ids, labels, base.segments, base.prefix))
    rows: list[int] = []
    real = likelihood.collate
    monkeypatch.setattr(likelihood, "collate", lambda batch, *rest: rows.append(len(batch)) or real(batch, *rest))
    found = score_samples(peers.model, samples, batch_size=4, pad_id=0)
    assert rows == [1]
    for token, one in zip((5, 6, 7), found, strict=True):
        assert one.log_probability == pytest.approx(peers.log_probabilities([*base.ids.tolist(), token])[-1], rel=1e-5)


def test_the_model_comes_back_in_its_mode(peers: Any) -> None:
    peers.model.train()
    score_samples(peers.model, [drawn(6, 3)], batch_size=1, pad_id=0)
    assert peers.model.training
    peers.model.eval()
