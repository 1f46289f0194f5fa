"""What --preview_data prints."""

from __future__ import annotations

import numpy as np

from llm_run.core.data.encoding import to_sample
from llm_run.core.data.packing import join
from llm_run.core.data.preview import preview
from llm_run.core.data.sample import Sample
from llm_run.core.data.tokenizers import JsonTokenizer


class Fixed:
    """Samples that are given."""

    fingerprint = ""

    def __init__(self, *samples: Sample) -> None:
        self.samples, self.epoch_size = samples, len(samples)

    def sample(self, position: int) -> Sample:
        return self.samples[position]


def encoded(bpe: JsonTokenizer, *parts: tuple[str, bool]) -> Sample:
    pieces = [(bpe.encode(text), learnt) for text, learnt in parts]
    ids = [token for tokens, _ in pieces for token in tokens]
    learnt = [is_learnt for tokens, is_learnt in pieces for _ in tokens]
    return to_sample(np.array(ids), np.array(learnt))


def test_what_is_learnt_stands_between_marks(bpe: JsonTokenizer) -> None:
    sample = encoded(bpe, ("the dog", False), (" and 人", True), (" the fox", False), (" minds", True))
    lines = list(preview(Fixed(sample), 1, bpe))
    assert lines[1] == "the dog⟦ and 人⟧ the fox⟦ minds⟧"
    assert f"sample 1: {len(sample.ids)} tokens, {(sample.labels >= 0).sum()} are learnt" in lines[0]


def test_the_records_of_a_packed_row_are_shown_apart(bpe: JsonTokenizer) -> None:
    row = join([encoded(bpe, ("a dog", False), (" one", True)), encoded(bpe, ("a fox", False), (" two", True))])
    lines = list(preview(Fixed(row), 1, bpe))
    assert "2 records" in lines[0]
    assert lines[1:] == ["a dog⟦ one⟧", "── record 2 of sample 1", "a fox⟦ two⟧"]


def test_without_a_tokenizer_the_tokens_are_shown() -> None:
    sample = to_sample(np.array([5, 6, 7, 8]), np.array([False, False, True, True]))
    assert list(preview(Fixed(sample), 1, None))[1] == "5 6⟦7 8⟧"
