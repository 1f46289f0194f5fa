"""Which parameters and gradients are gathered and reduced together. Pure arithmetic: imports no Paddle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

BUCKET_BYTES = 32 << 20
"""Gradients that are sent at once: large enough that the start of a call costs nothing beside it."""
Kind = Literal["others", "vocabulary", "block"]
_BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Together:
    """Parameters that a pass needs at the same time."""

    kind: Kind
    """``block``: of one block; ``vocabulary``: one matrix with a row or column for each token, which is large and
    needed at one end of the model only; ``others``: what is left, all of it small."""
    names: tuple[str, ...]
    block: int = -1
    """Number of the block."""


def divide(shapes: Mapping[str, Sequence[int]], vocab_size: int) -> list[Together]:
    """Divide parameters into units: what is left first, then the vocabulary's matrices, then the blocks in order.

    Args:
        shapes: of the logical parameters, by name.
        vocab_size: tokens of the vocabulary.
    """
    others, vocabulary, blocks = [], [], dict[int, list[str]]()
    for name, shape in shapes.items():
        if found := _BLOCK.match(name):
            blocks.setdefault(int(found.group(1)), []).append(name)
        elif len(shape) == 2 and vocab_size in shape:
            vocabulary.append(name)
        else:
            others.append(name)
    return list(_units(others, vocabulary, blocks))


def _units(others: list[str], vocabulary: list[str], blocks: Mapping[int, list[str]]) -> Iterator[Together]:
    if others:
        yield Together("others", tuple(others))
    for name in vocabulary:
        yield Together("vocabulary", (name,))
    for block in sorted(blocks):
        yield Together("block", tuple(blocks[block]), block)


def even_rows(rows: int, ranks: int) -> list[tuple[int, int]]:
    """Return first and last row of each rank's share, as even as it goes."""
    return [(rows * rank // ranks, rows * (rank + 1) // ranks) for rank in range(ranks)]


def buckets(sizes: Mapping[str, int], *, most: int = BUCKET_BYTES) -> Iterator[list[str]]:
    """Yield names in their order, together as long as their ``sizes`` add up to ``most`` at the most."""
    bucket: list[str] = []
    held = 0
    for name, size in sizes.items():
        if bucket and held + size > most:
            yield bucket
            bucket, held = [], 0
        bucket.append(name)
        held += size
    if bucket:
        yield bucket
