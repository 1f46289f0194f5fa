"""Messages and meetings over TCP: what arrives, and who is named where somebody does not come."""

from __future__ import annotations

import re
import socket
import time
from functools import partial

import pytest

from llm_run.core.errors import DistributedError
from llm_run.core.parallel.wire import FINE, FRAME, LARGEST, GoneError, SilentError, Wire, frame, read_frame

from .conftest import Star, together


@pytest.mark.parametrize("ranks", [(0, 1), (2, 5, 7)])
def test_every_rank_gets_every_message_in_the_order_of_the_group(star: Star, ranks: tuple[int, ...]) -> None:
    wires = star(*ranks)
    for text in ("", "x", "é" * 100_000):
        messages = {rank: f"{text}{rank}".encode() for rank in ranks}
        calls = {rank: partial(wires[rank].exchange, messages[rank], "here") for rank in ranks}
        found = together(calls)
        assert all(found[rank] == list(messages.values()) for rank in ranks)


def test_plain_values_come_back_as_they_were(star: Star) -> None:
    wires = star(0, 1)
    values = [{"a": [1, 2.5, None, True]}, ["text"]]
    found = together({rank: partial(wires[rank].exchange_json, values[rank], "here") for rank in (0, 1)})
    assert found == {0: values, 1: values}


def test_ranks_meet_again_and_again_and_one_waits_for_the_other(star: Star) -> None:
    wires = star(0, 1, 2)
    times: dict[int, float] = {}

    def late() -> None:
        wires[2].meet("first")
        time.sleep(0.2)
        times[2] = time.monotonic()
        wires[2].meet("second")

    def early(rank: int) -> None:
        wires[rank].meet("first")
        wires[rank].meet("second")
        times[rank] = time.monotonic()

    together({0: lambda: early(0), 1: lambda: early(1), 2: late})
    assert times[0] > times[2] and times[1] > times[2]


def test_ranks_at_different_points_are_all_told_who_is_where(star: Star) -> None:
    wires = star(0, 1, 2)
    found = together({rank: partial(wires[rank].meet, "here" if rank < 2 else "there") for rank in range(3)})
    said = "ranks have lost step: rank 0 is at here; rank 1 is at here; rank 2 is at there"
    assert [str(found[rank]) for rank in range(3)] == [said] * 3
    assert all(isinstance(found[rank], DistributedError) for rank in range(3))


@pytest.mark.parametrize("ranks", [(0, 1), (0, 1, 2)])
def test_a_late_rank_is_named_to_all_others(star: Star, ranks: tuple[int, ...]) -> None:
    wires = star(*ranks, timeout_s=0.3)
    late = ranks[-1]
    found = together({rank: partial(wires[rank].meet, "step 7") for rank in ranks[:-1]})
    for rank in ranks[:-1]:
        assert str(found[rank]) == (
            f"rank {late} did not come to step 7 within 0.3 seconds (dist_timeout). "
            "It hangs, or needs a higher --dist_timeout."
        )
        assert found[rank].ranks == (late,)


def test_a_rank_that_has_hung_up_is_named_at_once(star: Star) -> None:
    wires = star(0, 1, 2, timeout_s=60)
    wires[1].close()
    found = together({0: lambda: wires[0].meet("step 7"), 2: lambda: wires[2].meet("step 7")})
    said = "rank 1 has ended while rank 0 was at step 7. Its own output says why."
    assert [str(found[rank]) for rank in (0, 2)] == [said, said]
    assert found[2].ranks == (1,)


def test_a_hub_that_has_hung_up_is_named(star: Star) -> None:
    wires = star(0, 1)
    wires[0].close()
    with pytest.raises(DistributedError, match=re.escape("rank 0 has ended while rank 1 was at step 7.")):
        wires[1].meet("step 7")


def test_a_closed_wire_is_an_error_and_no_crash(star: Star) -> None:
    wires = star(0, 1)
    wires[1].close()
    with pytest.raises(DistributedError):
        wires[1].meet("x")


def test_two_ranks_can_send_without_waiting(star: Star) -> None:
    wires = star(3, 4)
    wires[3].send(b"a", "x")
    wires[4].send(b"b", "x")
    assert (wires[3].receive("x"), wires[4].receive("x")) == (b"b", b"a")


def test_what_is_not_ours_is_hung_up_on() -> None:
    for sent in (b"GET / HTTP/1.1\r\n\r\n", FRAME.pack(FINE, LARGEST + 1)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(sent)
            with pytest.raises(GoneError):
                read_frame(ours, 1.0)


def test_half_a_frame_is_silence_and_a_closed_one_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame(FINE, b"whole")[:-2])
        with pytest.raises(SilentError):
            read_frame(ours, 0.05)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(frame(FINE, b"whole")[:-2])
        with pytest.raises(GoneError):
            read_frame(ours, 1.0)


def test_a_group_of_two_has_one_peer() -> None:
    ours, theirs = socket.socketpair()
    wire = Wire((1, 2), 2, {1: ours}, timeout_s=1)
    with theirs:
        wire.send(b"x", "here")
        assert read_frame(theirs, 1.0) == (FINE, b"x")
    wire.close()
