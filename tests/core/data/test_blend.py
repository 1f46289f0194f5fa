"""Blending against the published rule, evaluated term by term."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llm_run.core.data.blend import Blend
from llm_run.core.data.corpus import Corpus
from llm_run.core.data.index_cache import IndexCache
from llm_run.core.data.token_file import TokenFile


@pytest.fixture
def corpora(tmp_path: Path) -> list[Corpus]:
    """Three corpora whose tokens are 0, 1 and 2."""
    made = []
    for number in range(3):
        tokens, size = np.full(400, number, dtype=np.int32), np.array([400], dtype=np.int64)
        file = TokenFile(Path(str(number)), tokens, np.array([0]), size)
        made.append(Corpus(file, range(1), length=4, seed=1, file_hash=str(number), cache=IndexCache(tmp_path)))
    return made


def test_the_corpus_that_lags_most_is_next(corpora: list[Corpus]) -> None:
    weights = np.array([0.7, 0.2, 0.1])
    blend = Blend(corpora, [7, 2, 1])
    counts = np.zeros(3)
    for position in range(500):
        chosen = int(np.argmax(weights * max(position, 1) - counts))
        counts[chosen] += 1
        assert blend.sample(position).ids.tolist() == [chosen] * 4
    assert np.abs(counts / 500 - weights).max() < 0.01


def test_a_position_has_its_sample_whatever_was_asked_before(corpora: list[Corpus]) -> None:
    one, other = Blend(corpora, [3, 3, 1]), Blend(corpora, [3, 3, 1])
    one.prepare(5)
    late = one.sample(900).ids.tolist()
    assert [other.sample(position).ids.tolist() for position in range(901)][-1] == late


def test_weights_are_part_of_the_fingerprint(corpora: list[Corpus]) -> None:
    assert Blend(corpora, [1, 1, 1]).fingerprint == Blend(corpora, [2, 2, 2]).fingerprint
    assert Blend(corpora, [1, 1, 1]).fingerprint != Blend(corpora, [1, 1, 2]).fingerprint
    assert Blend(corpora, [1, 1, 1]).epoch_size == sum(corpus.epoch_size for corpus in corpora)
