"""Which pieces of a model each pipeline stage computes. Pure arithmetic: imports no Paddle.

Pieces are joined into sections, ``virtual`` times as many as there are stages; section i is on stage i mod stages.
Sections are balanced by the parameters that a token is multiplied with, the head's among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import PluginError
from ...registry.facts import Piece


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive pieces that are computed in one go."""

    index: int
    """In forward order."""
    stage: int
    pieces: tuple[Piece, ...]
    cost: int
    """Parameters that a token is multiplied with."""

    @property
    def blocks(self) -> range:
        """The numbers of its blocks."""
        numbers = [int(piece.name.removeprefix("blocks.")) for piece in self.pieces if _is_block(piece)]
        return range(numbers[0], numbers[-1] + 1)


@dataclass(frozen=True, slots=True)
class Cut:
    """A model cut into sections, and the sections dealt out to stages."""

    sections: tuple[Section, ...]
    stages: int

    @property
    def virtual(self) -> int:
        """Sections on each stage."""
        return len(self.sections) // self.stages

    def of_stage(self, stage: int) -> tuple[Section, ...]:
        """Return the sections of one stage, in forward order."""
        return self.sections[stage :: self.stages]

    def owns(self, stage: int, name: str) -> bool:
        """Whether a parameter is in a piece of this stage: each is so on one stage only, which counts and saves it."""
        return any(_within(name, piece.parameters) for section in self.of_stage(stage) for piece in section.pieces)

    def holds(self, stage: int, name: str) -> bool:
        """Whether this stage needs a parameter: it owns it, or its head uses it too (tied embeddings)."""
        return self.owns(stage, name) or (stage == self.stages - 1 and self.is_shared(name))

    def is_shared(self, name: str) -> bool:
        """Whether first and last stage both hold a parameter, whose gradient is the sum of theirs."""
        head = self.sections[-1].pieces[-1]
        return bool(head.shares) and name.startswith(head.shares) and not self.owns(self.stages - 1, name)

    def __str__(self) -> str:
        return " | ".join(_told(section.blocks) for section in self.sections)


def cut_model(pieces: Sequence[Piece], sizes: Mapping[str, Sequence[int]], *, stages: int, virtual: int = 1) -> Cut:
    """Cut a model so that the costliest section is as cheap as can be.

    Args:
        pieces: of the family, in forward order: ``embed``, ``blocks.0`` ..., ``finish``, ``head``.
        sizes: shapes of all parameters of the whole model, by name.
        stages: pipeline stages.
        virtual: sections on each stage.

    Returns:
        The cut; every section has a block at least, the first one ``embed``, the last one ``finish`` and ``head``.

    Raises:
        PluginError: the family's pieces are not those of its model.
    """
    _check(pieces, sizes)
    blocks = [piece for piece in pieces if _is_block(piece)]
    count = stages * virtual
    assert len(blocks) >= count, "the plan is checked against the number of layers before a task starts"
    costs = [_cost(piece, sizes) for piece in blocks]
    ends = tuple(pieces[1 + len(blocks) :])
    bounds = _balance(costs, count, sum(_cost(piece, sizes) for piece in ends))
    sections = []
    for index, (low, high) in enumerate(itertools.pairwise(bounds)):
        own = (*pieces[:1], *blocks[low:high]) if index == 0 else tuple(blocks[low:high])
        own = (*own, *ends) if index == count - 1 else own
        sections.append(Section(index, index % stages, own, sum(_cost(piece, sizes) for piece in own)))
    return Cut(tuple(sections), stages)


def _balance(costs: Sequence[int], count: int, last: int) -> list[int]:
    """Return the bounds of ``count`` runs of ``costs`` whose greatest sum, ``last`` added to the last, is least.

    Of several such cuts it takes one with a small sum of squares. Dynamic programming over (runs, blocks).
    """
    sums = list(itertools.accumulate(costs, initial=0))
    best: dict[int, tuple[int, int, list[int]]] = {0: (0, 0, [0])}
    for run in range(1, count + 1):
        found: dict[int, tuple[int, int, list[int]]] = {}
        for high in range(run, len(costs) - (count - run) + 1):
            options = []
            for low, (most, squares, bounds) in best.items():
                if low < high:
                    cost = sums[high] - sums[low] + (last if run == count else 0)
                    options.append((max(most, cost), squares + cost * cost, [*bounds, high]))
            found[high] = min(options)
        best = found
    return best[len(costs)][2]


def _cost(piece: Piece, sizes: Mapping[str, Sequence[int]]) -> int:
    """Return the parameters in the matrices of a piece; looking up embeddings costs next to nothing."""
    if piece.name == "embed":
        return 0
    prefixes = (*piece.parameters, piece.shares) if piece.shares else piece.parameters
    return sum(shape[0] * shape[1] for name, shape in sizes.items() if len(shape) == 2 and _within(name, prefixes))


def _check(pieces: Sequence[Piece], sizes: Mapping[str, Sequence[int]]) -> None:
    names = [piece.name for piece in pieces]
    wanted = ["embed", *(f"blocks.{index}" for index in range(len(names) - 3)), "finish", "head"]
    if names != wanted:
        raise PluginError(f"llm_run_pipeline_split: pieces are {', '.join(names)}; they must be {', '.join(wanted)}.")
    for name in sizes:
        holders = [piece.name for piece in pieces if _within(name, piece.parameters)]
        if len(holders) != 1:
            said = " and ".join(holders) or "no piece"
            raise PluginError(f"llm_run_pipeline_split: parameter {name} is in {said}; it must be in one piece.")


def _is_block(piece: Piece) -> bool:
    return piece.name.startswith("blocks.")


def _within(name: str, prefixes: Sequence[str]) -> bool:
    return any(name.startswith(prefix) for prefix in prefixes)


def _told(blocks: range) -> str:
    return str(blocks[0]) if len(blocks) == 1 else f"{blocks[0]}-{blocks[-1]}"
