"""What a model is trained on, for eyes: samples as text, what is learnt between marks."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from .sample import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .sample import Sample, SampleSource
    from .tokenizer import Tokenizer

OPEN, CLOSE = "⟦", "⟧"
"""Stand around what is learnt."""


def preview(source: SampleSource, count: int, tokenizer: Tokenizer | None) -> Iterator[str]:
    """Yield the first samples of training as text.

    Args:
        source: of the samples, in their order.
        count: of samples.
        tokenizer: turns tokens into text; without one their numbers are shown.
    """
    for position in range(count):
        sample = source.sample(position)
        learnt = int((sample.labels != IGNORED).sum())
        segments = [int(segment) for segment in np.unique(sample.segments) if segment > 0]
        records = f"{len(segments)} records, " if len(segments) > 1 else ""
        yield f"── sample {position + 1}: {records}{len(sample.ids)} tokens, {learnt} are learnt {OPEN}so{CLOSE}"
        for place, segment in enumerate(segments):
            if place:
                yield f"── record {place + 1} of sample {position + 1}"
            yield _render(sample, sample.segments == segment, tokenizer)


def _render(sample: Sample, here: np.ndarray, tokenizer: Tokenizer | None) -> str:
    ids, labels = sample.ids[here], sample.labels[here]
    # A label is the next token: the first token is never one, and the last label has no token of its own.
    tokens = [(int(token), bool(learnt)) for token, learnt in zip(ids, [False, *(labels[:-1] != IGNORED)], strict=True)]
    if labels[-1] != IGNORED:
        tokens.append((int(labels[-1]), True))
    text = ""
    for is_learnt, run in groupby(tokens, key=lambda token: token[1]):
        numbers = [token for token, _ in run]
        said = " ".join(map(str, numbers)) if tokenizer is None else tokenizer.decode(numbers, skip_special=False)
        text += f"{OPEN}{said}{CLOSE}" if is_learnt else said
    return text
