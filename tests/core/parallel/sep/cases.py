"""What ranks share in the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.ops import alibi_slopes
from llm_run.core.ops.mask import AttentionMask

LENGTH, SIZE = 10, 4
SEGMENTS = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 2, 3], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]], dtype=np.int32)
PREFIX = np.array([[1, 1, 0, 0, 1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]], dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attention."""

    heads: int = 4
    kv_heads: int = 4
    is_packed: bool = False
    has_prefix: bool = False
    slopes_N: np.ndarray | None = None

    def mask(self) -> AttentionMask:
        """Return the mask of whole rows."""
        return AttentionMask(
            paddle.to_tensor(SEGMENTS) if self.is_packed else None,
            paddle.to_tensor(PREFIX) if self.has_prefix else None,
        )

    @property
    def inputs(self) -> list[np.ndarray]:
        """Queries, keys and values of whole rows."""
        random = np.random.default_rng(self.heads * 10 + self.kv_heads)
        shapes = [(2, LENGTH, count, SIZE) for count in (self.heads, self.kv_heads, self.kv_heads)]
        return [random.normal(size=shape).astype(np.float32) for shape in shapes]

    @property
    def pulled(self) -> np.ndarray:
        """The gradient of the output."""
        return np.random.default_rng(0).normal(size=(2, LENGTH, self.heads, SIZE)).astype(np.float32)


ATTENTION = {
    "as many key heads": Case(),
    "two query heads a key head": Case(kv_heads=2),
    "fewer key heads than ranks": Case(kv_heads=1),
    "key heads that do not divide": Case(heads=6, kv_heads=3),
    "packed rows with padding": Case(is_packed=True),
    "prompts that see themselves both ways": Case(is_packed=True, has_prefix=True),
    "biases by distance": Case(slopes_N=alibi_slopes(4)),
}


def batch_of(config: Any) -> Batch:
    """Two rows of odd length: three packed records, and one that is shorter than the row and all in its first half."""
    random = np.random.default_rng(5)
    return collate([_row(config, random, (4, 11, 6)), _row(config, random, (9,))], config, 0)


def sparse_batch(config: Any) -> Batch:
    """A row of two records of which only the first one is learnt: nothing of what the second rank has."""
    batch = collate([_row(config, np.random.default_rng(6), (8, 8))], config, 0)
    batch.labels_BS[:, 8:] = IGNORED
    return batch


def pairs_of(config: Any) -> Batch:
    """A row with a pair of answers, and one whose pair is all in the first half."""
    random = np.random.default_rng(7)
    rows = [_row(config, random, sizes) for sizes in ((9, 12), (5, 5))]
    for row in rows:
        row.labels[np.append(True, row.segments[1:] != row.segments[:-1])] = IGNORED
    return collate(rows, config, 0)


def short_pairs_of(config: Any) -> Batch:
    """A row with a pair of which the first answer's last token alone is learnt: none of what the second rank has."""
    batch = collate([_row(config, np.random.default_rng(8), (6, 6))], config, 0)
    batch.labels_BS[:, [*range(4), *range(5, 12)]] = IGNORED
    return batch


def _row(config: Any, random: np.random.Generator, sizes: tuple[int, ...]) -> Sample:
    records = [random.integers(3, config.vocab_size, [size]) for size in sizes]
    labels = [np.append(ids[1:], IGNORED) for ids in records]
    prefix = [np.arange(size) < 2 for size in sizes]
    segments = [np.full(size, number, dtype=np.int32) for number, size in enumerate(sizes, start=1)]
    return Sample(*(np.concatenate(parts) for parts in (records, labels, segments, prefix)))
