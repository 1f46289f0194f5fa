"""Doing something on all ranks so that it succeeds or fails on all of them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from .mesh import Mesh


def together(mesh: Mesh, what: str, act: Callable[[], Any]) -> list[Any]:
    """Do something on every rank and return all ranks' results, in the order of ranks.

    Args:
        mesh: of this run.
        what: the same on all ranks, for messages.
        act: this rank's part; returns a plain value (numbers, texts, lists, dicts).

    Raises:
        OSError: what the first rank that could not do it raised, on every rank.
        DistributedError: a rank has gone, is late, or came to something else.
    """
    if mesh.is_alone:
        return [act()]
    try:
        said: dict[str, Any] = {"result": act()}
    except OSError as error:
        said = {"error": [error.errno or errno.EIO, error.strerror or str(error)]}
    answers = mesh.gather(said, what)
    for rank, answer in enumerate(answers):
        if "error" in answer:
            number, text = answer["error"]
            raise OSError(number, f"rank {rank}: {text}")
    return [answer["result"] for answer in answers]


def by_main(mesh: Mesh, what: str, act: Callable[[], Any]) -> Any:
    """Do something on rank 0 only, and return its result on every rank.

    Raises:
        OSError: rank 0 could not do it; raised on every rank.
        DistributedError: a rank has gone, is late, or came to something else.
    """
    return together(mesh, what, act if mesh.is_main else lambda: None)[0]
