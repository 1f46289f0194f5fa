"""How the ranks of a group find each other: the hub listens, the others connect."""

from __future__ import annotations

import hmac
import json
import socket
import time
from collections.abc import Sequence

from ..errors import DistributedError
from .wire import FINE, GoneError, SilentError, Wire, frame, read_frame

RETRY = 0.01
"""Seconds between two tries to connect."""
MANNERS = 2.0
"""Seconds in which a caller must say who it is."""
STRANGERS = 10.0
"""Seconds in which a member that is turned away tries again: what listens there may be another job's, and soon gone."""
PATIENCE = 5.0
"""Seconds that a member waits longer than the hub, which knows who is missing."""


def listen(port: int = 0) -> socket.socket:
    """Open the hub's port, on all interfaces; 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", port))
        server.listen(1024)
    except OSError:
        server.close()
        raise
    return server


def accept_all(server: socket.socket, ranks: Sequence[int], *, token: str, timeout_s: float) -> Wire:
    """As the hub, wait for the other ranks of the group, and close ``server``.

    Args:
        server: from ``listen``.
        ranks: the group; the first is this process.
        token: whoever does not know it (a port scanner, another job with the same port) is turned away.
        timeout_s: seconds until all must be there, and later the time limit of the wire.

    Raises:
        DistributedError: not all ranks came in time.
    """
    links: dict[int, socket.socket] = {}
    deadline = time.monotonic() + timeout_s
    with server:
        while len(links) < len(ranks) - 1:
            server.settimeout(max(RETRY, deadline - time.monotonic()))
            try:
                link, _ = server.accept()
            except TimeoutError:
                raise _missing([rank for rank in ranks[1:] if rank not in links], ranks[0], timeout_s) from None
            rank = _introduction(link, token)
            if rank is not None and rank in ranks[1:] and rank not in links:
                _prepare(link)
                links[rank] = link
            else:
                link.close()
    for link in links.values():
        link.sendall(frame(FINE, b""))
    return Wire(ranks, ranks[0], links, timeout_s=timeout_s)


def connect(address: tuple[str, int], ranks: Sequence[int], rank: int, *, token: str, timeout_s: float) -> Wire:
    """As a member, connect to the hub, which may not listen yet.

    A free port that was chosen for the hub may for a moment be used by others before the hub listens on it.

    Raises:
        DistributedError: the hub cannot be reached in time, or turns this rank away.
    """
    hub, deadline = ranks[0], time.monotonic() + timeout_s
    end, turned_away = deadline, None
    while turned_away is None or time.monotonic() < end:
        try:
            link = _call(address, rank, hub, end, timeout_s)
        except DistributedError:
            if turned_away is None:
                raise
            break  # who turned this rank away has gone, and the hub has not come
        try:
            link.sendall(frame(FINE, json.dumps([token, rank]).encode()))
            read_frame(link, max(RETRY, deadline - time.monotonic()) + PATIENCE)
        except (GoneError, SilentError, OSError) as error:
            link.close()
            if turned_away is None:
                end = min(deadline, time.monotonic() + STRANGERS)
            turned_away = error
            time.sleep(RETRY)
        else:
            return Wire(ranks, rank, {hub: link}, timeout_s=timeout_s)
    text = f"rank {hub} at {address[0]}:{address[1]} let rank {rank} go: other ranks are missing, "
    raise DistributedError(f"{text}or another job uses the port.", ranks=(hub,)) from turned_away


def local_address(towards: str) -> str:
    """Return the address of this machine that machines beside ``towards`` can reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((towards, 9))  # sends nothing: the system only chooses the interface
        address: str = probe.getsockname()[0]
        return address


def wait_until_listening(address: tuple[str, int], *, timeout_s: float) -> None:
    """Return as soon as somebody listens there.

    Raises:
        OSError: nobody did in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(address, max(RETRY, deadline - time.monotonic())).close()
            return
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY)


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with listen() as server:
        port: int = server.getsockname()[1]
        return port


def _call(address: tuple[str, int], rank: int, hub: int, deadline: float, timeout_s: float) -> socket.socket:
    while True:
        try:
            link = socket.create_connection(address, max(RETRY, deadline - time.monotonic()))
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(RETRY)
                continue
            place = f"{address[0]}:{address[1]}"
            text = f"rank {rank} cannot reach rank {hub} at {place} within {timeout_s:g} seconds (dist_timeout)"
            raise DistributedError(f"{text}: {error}.", ranks=(hub,)) from error
        _prepare(link)
        return link


def _introduction(link: socket.socket, token: str) -> int | None:
    """Return the rank of a caller who knows the token."""
    try:
        _, body = read_frame(link, MANNERS)
        theirs, rank = json.loads(body)
        return rank if isinstance(rank, int) and hmac.compare_digest(str(theirs), token) else None
    except (GoneError, SilentError, OSError, ValueError, TypeError):
        return None


def _prepare(link: socket.socket) -> None:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _missing(missing: Sequence[int], hub: int, timeout_s: float) -> DistributedError:
    who = ("rank " if len(missing) == 1 else "ranks ") + ", ".join(map(str, missing))
    text = f"{who} did not connect to rank {hub} within {timeout_s:g} seconds (dist_timeout)"
    return DistributedError(f"{text}. Look at their output, or give more time.", ranks=tuple(missing))
