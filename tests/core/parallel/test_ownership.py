from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.ownership import share_out
from llm_run.core.parallel.slices import Part


@dataclass
class Everybody:
    """A mesh of ranks whose answers are known."""

    rank: int
    said: list[Any]
    is_alone: bool = False

    def gather(self, value: Any, what: str) -> list[Any]:
        assert self.said[self.rank] == [[name, [list(pair) for pair in slices]] for name, slices in value]
        return self.said


def shared(held: list[dict[str, Part]]) -> list[dict[str, tuple[bool, ...]]]:
    said = [[[name, [[p.start, p.stop] for p in part.slices]] for name, part in own.items()] for own in held]
    found = [share_out(own, cast(Mesh, Everybody(rank, said))) for rank, own in enumerate(held)]
    assert {one.names for one in found} == {frozenset(name for own in held for name in own)}
    return [dict(one.owned) for one in found]


def test_one_process_owns_all() -> None:
    found = share_out({"w": Part.whole((4, 2))}, Mesh())
    assert (found.owned, found.names) == ({"w": (True,)}, frozenset({"w"}))


def test_what_all_hold_is_shared_out_evenly() -> None:
    everything = {f"w{size}": Part.whole((size, 2)) for size in (4, 3, 2, 1)}
    assert shared([everything, everything]) == [
        {"w4": (True,), "w3": (False,), "w2": (False,), "w1": (True,)},
        {"w4": (False,), "w3": (True,), "w2": (True,), "w1": (False,)},
    ]


def test_what_one_rank_holds_alone_is_its_own() -> None:
    halves = [{"w": Part.along((4, 2), 0, [span]), "b": Part.whole((2,))} for span in ((0, 2), (2, 4))]
    first, second = shared(halves)
    assert (first["w"], second["w"]) == ((True,), (True,))
    assert [first["b"], second["b"]] == [(True,), (False,)]


def test_blocks_of_one_tensor_may_have_different_owners() -> None:
    """Queries split over two ranks, keys held by both."""
    held = [{"qk": Part.along((2, 6), 1, [span, (4, 6)])} for span in ((0, 2), (2, 4))]
    assert shared(held) == [{"qk": (True, True)}, {"qk": (True, False)}]
