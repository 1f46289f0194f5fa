"""How ranks find each other, and who is turned away."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import pytest

from llm_run.core.errors import DistributedError
from llm_run.core.parallel import rendezvous
from llm_run.core.parallel.rendezvous import accept_all, connect, free_port, listen, local_address, wait_until_listening
from llm_run.core.parallel.wire import FINE, frame

from .conftest import together


def test_a_member_may_come_before_the_hub_listens() -> None:
    port = free_port()

    def hub() -> None:
        time.sleep(0.2)
        accept_all(listen(port), (0, 1), token="t", timeout_s=5).close()

    found = together({0: hub, 1: lambda: connect(("127.0.0.1", port), (0, 1), 1, token="t", timeout_s=5).close()})
    assert found == {0: None, 1: None}


def test_ranks_that_do_not_come_are_named() -> None:
    with pytest.raises(DistributedError) as caught:
        accept_all(listen(), (0, 1, 2), token="t", timeout_s=0.2)
    assert str(caught.value) == (
        "ranks 1, 2 did not connect to rank 0 within 0.2 seconds (dist_timeout). "
        "Look at their output, or give more time."
    )
    assert caught.value.ranks == (1, 2)


def test_a_hub_that_cannot_be_reached_is_named_with_its_address() -> None:
    port = free_port()
    with pytest.raises(DistributedError) as caught:
        connect(("127.0.0.1", port), (0, 1), 1, token="t", timeout_s=0.2)
    said = f"rank 1 cannot reach rank 0 at 127.0.0.1:{port} within 0.2 seconds (dist_timeout): "
    assert str(caught.value).startswith(said)


def test_strangers_are_turned_away_and_do_not_keep_the_ranks_from_meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MANNERS", 0.1)
    server = listen()
    address = ("127.0.0.1", server.getsockname()[1])
    strangers = [socket.create_connection(address) for _ in range(5)]
    for stranger, said in zip(
        strangers,
        (
            b"GET / HTTP/1.1\r\n\r\n",
            frame(FINE, b"not json"),
            frame(FINE, b'["wrong", 1]'),
            frame(FINE, b'["t", 9]'),
            b"",
        ),
        strict=True,
    ):
        stranger.sendall(said)
    member = threading.Thread(target=lambda: connect(address, (0, 1), 1, token="t", timeout_s=5).close())
    member.start()
    accept_all(server, (0, 1), token="t", timeout_s=5).close()
    member.join()
    for stranger in strangers:
        stranger.settimeout(1)
        with stranger, contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""


def test_a_rank_of_another_job_hears_that_the_port_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MANNERS", 0.1)
    server = listen()
    address = ("127.0.0.1", server.getsockname()[1])
    hub = threading.Thread(target=lambda: together({0: lambda: accept_all(server, (0, 1), token="t", timeout_s=0.5)}))
    hub.start()
    with pytest.raises(DistributedError, match=re.escape("or another job uses the port.")):
        connect(address, (0, 1), 1, token="another", timeout_s=0.5)
    hub.join()


def test_a_member_that_met_another_job_at_the_port_tries_again_until_its_own_hub_is_there() -> None:
    stranger = listen()
    port = stranger.getsockname()[1]
    turned_away = threading.Event()

    def other_job() -> None:
        link, _ = stranger.accept()
        link.close()
        stranger.close()
        turned_away.set()

    def hub() -> None:
        turned_away.wait(5)
        accept_all(listen(port), (0, 1), token="t", timeout_s=5).close()

    threading.Thread(target=other_job).start()
    found = together({0: hub, 1: lambda: connect(("127.0.0.1", port), (0, 1), 1, token="t", timeout_s=5).close()})
    assert found == {0: None, 1: None}


def test_who_is_turned_away_again_and_again_gives_up_long_before_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendezvous, "STRANGERS", 0.2)
    server = listen()
    address = ("127.0.0.1", server.getsockname()[1])
    hub = threading.Thread(target=lambda: together({0: lambda: accept_all(server, (0, 1), token="t", timeout_s=3)}))
    hub.start()
    with pytest.raises(DistributedError, match=re.escape("or another job uses the port.")):
        connect(address, (0, 1), 1, token="another", timeout_s=600)
    connect(address, (0, 1), 1, token="t", timeout_s=5).close()
    hub.join()


def test_waiting_for_a_port_ends_when_somebody_listens_and_when_time_is_up(taken_port: int) -> None:
    wait_until_listening(("127.0.0.1", taken_port), timeout_s=1)
    with pytest.raises(OSError, match="refused"):
        wait_until_listening(("127.0.0.1", free_port()), timeout_s=0.05)


def test_a_taken_port_is_an_error(taken_port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        listen(taken_port)


def test_the_address_towards_this_machine_is_its_own() -> None:
    assert local_address("127.0.0.1") == "127.0.0.1"
