"""What neighbouring pipeline stages send each other: tensors of any shape, over a group of two ranks.

Gloo's send waits until the other side receives. Where both sides send (``swap``), the first rank of the edge sends
first and the second receives first, so neither waits for the other.
"""

from __future__ import annotations

import json
from typing import Any

import paddle
import paddle.distributed as dist
from paddle import Tensor

from ..errors import DistributedError
from .groups import Group

READY = b"ready"
"""Said by a receiver that is about to receive: gloo's send would give up after 30 seconds."""


class Edge:
    """The connection of one stage to one neighbour."""

    def __init__(self, group: Group) -> None:
        """Take a group of two ranks that nobody else uses."""
        assert group.size == 2 and group.wire is not None
        self.group = group
        self._wire = group.wire
        self._peer = group.ranks[1 - group.index]

    def send(self, *tensors: Tensor) -> None:
        """Send tensors, their shapes and dtypes first; returns when the neighbour has them.

        Raises:
            DistributedError: the neighbour has gone, or does not receive in time.
        """
        self._wire.send(json.dumps([_described(x) for x in tensors]).encode(), self._at("a send"))
        if self.group.backend == "gloo" and self._wire.receive(self._at("a send")) != READY:
            raise DistributedError(f"ranks have lost step: both send at {self._at('a send')}", ranks=self.group.ranks)
        for x in tensors:
            dist.send(x.contiguous(), self._peer, group=self.group.handle)

    def receive(self) -> tuple[Tensor, ...]:
        """Return the tensors that the neighbour sends; they carry no gradient.

        Raises:
            DistributedError: the neighbour has gone, or does not send in time.
        """
        said: list[list[Any]] = json.loads(self._wire.receive(self._at("a receive")))
        found = [paddle.empty(shape, dtype=dtype) for dtype, shape in said]
        if self.group.backend == "gloo":
            self._wire.send(READY, self._at("a receive"))
        for x in found:
            dist.recv(x, self._peer, group=self.group.handle)
        return tuple(found)

    def swap(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Send to the neighbour and receive from it; it must swap as well."""
        if self.group.index == 0:
            self.send(*tensors)
            return self.receive()
        received = self.receive()
        self.send(*tensors)
        return received

    def _at(self, call: str) -> str:
        return f"{call} of {self.group.name}"


def _described(x: Tensor) -> list[Any]:
    return [str(x.dtype).removeprefix("paddle."), list(x.shape)]
