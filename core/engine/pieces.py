"""The work of a step in plain numbers, which may be sent: every rank of a split model computes the same pieces."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..registry.facts import ModelConfig
    from .scheduler import Work

NUMBERS = 7
"""Of each piece, before its tokens."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Piece:
    """What one sequence does in a step."""

    ids_S: np.ndarray
    """int64, tokens that are computed."""
    positions: np.ndarray
    """int64 [1, S] or [1, 2, S], of these tokens."""
    start: int
    """Place of the first of them in its sequence."""
    num_prompt: int
    """Tokens of the sequence's prompt."""
    num_results: int
    """How many of the last tokens have logits that are wanted."""
    blocks: np.ndarray
    """int64, where the sequence's keys and values lie."""
    adapter: str | None = None
    """Name of the adapter that computes them."""

    @property
    def size(self) -> int:
        """Tokens that are computed."""
        return len(self.ids_S)

    @property
    def stop(self) -> int:
        """Place after the last token that is computed."""
        return self.start + self.size


def make_piece(work: Work, config: ModelConfig) -> Piece:
    """Return what a piece of work comes to, for a model of this configuration."""
    sequence, new_ids = work.sequence, work.new_ids
    known_1T = np.array([sequence.tokens[: work.start] + new_ids], dtype=np.int64)
    prefix_1T = np.arange(work.stop)[None] < sequence.num_prompt if config.prefix_lm else None
    positions = config.positions(known_1T, np.ones_like(known_1T, dtype=np.int32), prefix_1T)
    return Piece(
        ids_S=known_1T[0, work.start :],
        positions=np.ascontiguousarray(positions[..., work.start :]),
        start=work.start,
        num_prompt=sequence.num_prompt,
        num_results=work.num_results,
        blocks=np.array(sequence.blocks, dtype=np.int64),
        adapter=sequence.request.adapter,
    )


def pack(pieces: Several[Piece], adapters: Several[str]) -> np.ndarray:
    """Return pieces as one row of int64.

    Args:
        pieces: of one step.
        adapters: names of those that the model has, the same for ``unpack``.
    """
    rows = [np.array([len(pieces)], dtype=np.int64)]
    for piece in pieces:
        adapter = -1 if piece.adapter is None else adapters.index(piece.adapter)
        axes = piece.positions.size // piece.size
        numbers = [
            piece.size, axes, piece.start, piece.num_prompt, piece.num_results, len(piece.blocks), adapter,
        ]  # fmt: skip
        rows += [np.array(numbers, dtype=np.int64), piece.ids_S, piece.positions.ravel(), piece.blocks]
    return np.concatenate(rows)


def unpack(row: np.ndarray, adapters: Several[str]) -> list[Piece]:
    """Return the pieces of one step from what ``pack`` made of them."""
    pieces, at = [], 1
    for _ in range(int(row[0])):
        size, axes, start, num_prompt, num_results, num_blocks, adapter = row[at : at + NUMBERS].tolist()
        ends = np.cumsum([at + NUMBERS, size, axes * size, num_blocks])
        ids_S, positions, blocks = (row[ends[i] : ends[i + 1]] for i in range(3))
        at = int(ends[-1])
        shape = [1, size] if axes == 1 else [1, axes, size]
        pieces.append(
            Piece(
                ids_S=ids_S, positions=positions.reshape(shape), start=start, num_prompt=num_prompt,
                num_results=num_results, blocks=blocks, adapter=None if adapter < 0 else adapters[adapter],
            )
        )  # fmt: skip
    return pieces
