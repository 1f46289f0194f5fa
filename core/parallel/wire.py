"""A TCP star between the ranks of a group: short messages, meeting points with a time limit, and who is missing.

Gloo waits 30 seconds for a peer and no longer, whatever it is told, and says neither what it waited for nor for whom
(measured with Paddle 3.3.1); its store waits for ever. So ranks meet here before they hand tensors to gloo. A meeting
of two ranks costs about 50 microseconds. The first rank of the group is the hub: each sends it a frame, it answers
all of them. Nothing that is received is ever unpickled.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DistributedError

GRACE = 5.0
"""Seconds that members wait longer than the hub, so that its verdict, which names the rank, arrives first."""
SHORTEST = 0.001
"""Seconds that are waited at least, where the time is up already."""
LARGEST = 1 << 28
"""Bytes of a frame; a longer one is not ours."""
FRAME = struct.Struct("!cI")
LENGTH = struct.Struct("!I")
FINE, BROKEN = b"+", b"-"


class GoneError(Exception):
    """The other side has closed the connection."""


class SilentError(Exception):
    """The other side said nothing in time."""


class Wire:
    """One rank's end of the star."""

    def __init__(
        self, ranks: Sequence[int], rank: int, links: Mapping[int, socket.socket], *, timeout_s: float
    ) -> None:
        """Take over connections that are made.

        Args:
            ranks: the group, in ascending order; the first is the hub.
            rank: this process.
            links: the hub's connections by rank; of another rank the one to the hub.
            timeout_s: seconds that a rank may be late.
        """
        self.ranks = tuple(ranks)
        self.rank = rank
        self.timeout_s = timeout_s
        self._links = dict(links)

    @property
    def is_hub(self) -> bool:
        """Whether this rank is the hub."""
        return self.rank == self.ranks[0]

    def meet(self, what: str) -> None:
        """Wait until every rank of the group has come to ``what``.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        self.exchange(b"", what)

    def exchange(self, message: bytes, what: str) -> list[bytes]:
        """Give ``message`` to every rank and return all ranks' messages, in the order of the group.

        Args:
            message: of this rank.
            what: the point of the program; all ranks must name the same, or all of them raise.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        ours = _joined([what.encode(), message])
        if not self.is_hub:
            return self._ask(ours, what)
        try:
            frames = self._collect(what)
            frames[self.rank] = ours
            parts = {rank: _parted(frames[rank]) for rank in self.ranks}
            self._compare({rank: said[0].decode() for rank, said in parts.items()})
        except DistributedError as error:
            self._tell(BROKEN, json.dumps([str(error), error.ranks]).encode())
            raise
        messages = [parts[rank][1] for rank in self.ranks]
        self._tell(FINE, _joined(messages) if any(messages) else b"")
        return messages

    def exchange_json(self, value: Any, what: str) -> list[Any]:
        """Give a plain value (numbers, texts, lists, dicts) to every rank and return all ranks' values."""
        return [json.loads(message) for message in self.exchange(json.dumps(value).encode(), what)]

    def send(self, message: bytes, what: str) -> None:
        """Send to the other rank of a group of two, without waiting for it."""
        self._put(self._peer, FINE, message, what)

    def receive(self, what: str) -> bytes:
        """Wait for what the other rank of a group of two sends."""
        return self._get(self._peer, what, self.timeout_s)

    def close(self) -> None:
        """Hang up; the others see it at once."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    @property
    def _peer(self) -> int:
        first, second = self.ranks
        return second if self.rank == first else first

    def _ask(self, ours: bytes, what: str) -> list[bytes]:
        hub = self.ranks[0]
        self._put(hub, FINE, ours, what)
        answer = self._get(hub, what, self.timeout_s + GRACE)
        return _parted(answer) if answer else [b""] * len(self.ranks)

    def _collect(self, what: str) -> dict[int, bytes]:
        """Return the frames of all members, in whatever order they come."""
        deadline = time.monotonic() + self.timeout_s
        frames: dict[int, bytes] = {}
        if len(self._links) == 1:  # nearly all groups on a CPU: no selector is needed for one connection
            (rank,) = self._links
            return {rank: self._get(rank, what, self.timeout_s)}
        with selectors.DefaultSelector() as selector:
            for rank, link in self._links.items():
                selector.register(link, selectors.EVENT_READ, rank)
            while len(frames) < len(self._links):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise self._late([rank for rank in self._links if rank not in frames], what)
                for key, _ in ready:
                    frames[key.data] = self._get(key.data, what, max(SHORTEST, deadline - time.monotonic()))
                    selector.unregister(key.fileobj)
        return frames

    def _compare(self, places: Mapping[int, str]) -> None:
        """Make sure that all ranks are at the same point of the program."""
        if len(set(places.values())) > 1:
            said = "; ".join(f"rank {rank} is at {place}" for rank, place in places.items())
            raise DistributedError(f"ranks have lost step: {said}", ranks=tuple(places))

    def _tell(self, kind: bytes, body: bytes) -> None:
        for link in self._links.values():
            try:
                link.sendall(frame(kind, body))
            except OSError:
                continue  # whoever has gone is found missing at the next meeting; the others must hear this

    def _put(self, rank: int, kind: bytes, body: bytes, what: str) -> None:
        try:
            self._links[rank].sendall(frame(kind, body))
        except TimeoutError as error:
            raise self._late([rank], what) from error
        except (OSError, KeyError) as error:
            raise self._lost(rank, what) from error

    def _get(self, rank: int, what: str, timeout_s: float) -> bytes:
        try:
            kind, body = read_frame(self._links[rank], timeout_s)
        except SilentError as error:
            raise self._late([rank], what) from error
        except (GoneError, OSError, KeyError) as error:
            raise self._lost(rank, what) from error
        if kind == BROKEN:
            text, ranks = json.loads(body)
            raise DistributedError(str(text), ranks=tuple(ranks))
        return body

    def _late(self, ranks: Sequence[int], what: str) -> DistributedError:
        who = ", ".join(map(str, ranks))
        noun = "rank" if len(ranks) == 1 else "ranks"
        text = f"{noun} {who} did not come to {what} within {self.timeout_s:g} seconds (dist_timeout)"
        return DistributedError(f"{text}. It hangs, or needs a higher --dist_timeout.", ranks=tuple(ranks))

    def _lost(self, rank: int, what: str) -> DistributedError:
        text = f"rank {rank} has ended while rank {self.rank} was at {what}. Its own output says why."
        return DistributedError(text, ranks=(rank,))


def frame(kind: bytes, body: bytes) -> bytes:
    """Return what goes over the connection: kind, length, body."""
    return FRAME.pack(kind, len(body)) + body


def read_frame(link: socket.socket, timeout_s: float) -> tuple[bytes, bytes]:
    """Wait for one frame and return its kind and body.

    Raises:
        GoneError: the other side has closed the connection, or speaks another language.
        SilentError: nothing came in time.
    """
    link.settimeout(max(SHORTEST, timeout_s))
    kind, length = FRAME.unpack(_read_exactly(link, FRAME.size))
    if kind not in (FINE, BROKEN) or length > LARGEST:
        raise GoneError
    return kind, _read_exactly(link, length)


def _read_exactly(link: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        try:
            piece = link.recv(length - len(found))
        except TimeoutError as error:
            raise SilentError from error
        if not piece:
            raise GoneError
        found += piece
    return bytes(found)


def _joined(parts: Sequence[bytes]) -> bytes:
    return b"".join(LENGTH.pack(len(part)) + part for part in parts)


def _parted(body: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(body):
        (length,) = LENGTH.unpack_from(body, at)
        at += LENGTH.size + length
        parts.append(body[at - length : at])
    return parts
