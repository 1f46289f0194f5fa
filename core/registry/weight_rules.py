"""Weight rules for whole layers: one line of a family for what holds of several parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .facts import WeightRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WEIGHT, BOTH = ("weight",), ("weight", "bias")
"""Parts of a layer: a matrix or scale alone, or with a bias or offset."""


def renamed(
    names: Mapping[str, str], *, ours: str = "", theirs: str = "", parts: Sequence[str] = WEIGHT,
    transpose: bool = False,
) -> Iterator[WeightRule]:  # fmt: skip
    """Yield the rules of layers that only have another name elsewhere.

    Args:
        names: of the layers, ours and the foreign one.
        ours: what stands before our names (``blocks.{i}.``).
        theirs: what stands before the foreign ones.
        parts: of each layer.
        transpose: the foreign matrices are [out, in].
    """
    for name, foreign in names.items():
        yield from fused((f"{ours}{name}",), f"{theirs}{foreign}", parts=parts, transpose=transpose)


def fused(
    ours: Sequence[str], theirs: str, *, parts: Sequence[str] = WEIGHT, transpose: bool = False,
    sizes: tuple[int, ...] = (), interleave: tuple[int, ...] = (), rank_interleave: tuple[int, ...] = (),
) -> Iterator[WeightRule]:  # fmt: skip
    """Yield the rules of layers that are one layer elsewhere; see ``WeightRule`` for how it is cut.

    Args:
        ours: our layers, in the order in which the foreign one holds them.
        theirs: the foreign layer.
        parts: of each layer.
        transpose: the foreign matrix is [out, in].
        sizes: widths of our layers, where they are not equal.
        interleave: heads and parts, where the foreign layer holds our layers head by head.
        rank_interleave: the same, of a layer that is cut over tensor-parallel ranks.
    """
    for part in parts:
        yield WeightRule(
            tuple(f"{name}.{part}" for name in ours), (f"{theirs}.{part}",),
            transpose=transpose and part == "weight", sizes=sizes, interleave=interleave,
            rank_interleave=rank_interleave,
        )  # fmt: skip


def column_of(table: Mapping[str, Sequence[str]], index: int) -> dict[str, str]:
    """Return one layout's names out of a table with a column for each."""
    return {name: foreign[index] for name, foreign in table.items()}
