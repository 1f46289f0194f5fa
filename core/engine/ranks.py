"""One engine over several processes: rank 0 schedules and chooses, the others compute their part of each step.

Ranks tell each other plain numbers and nothing else. What rank 0 says goes over the group's wire, which knows when a
rank is late or gone; the layers of the split model then talk to each other as in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Several
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..adapters.switched import switched_names
from ..parallel.tensor.model import split_of
from .paged_runner import PagedRunner
from .pieces import make_piece, pack, unpack
from .step_runner import StepRunner

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..parallel.wire import Wire
    from .scheduler import Work

BEGIN, STEP, REST, END = range(4)
"""First number of what rank 0 says: sizes of the cache; pieces; nothing to do; the end."""
PLACE = "a step of the engine"
LONGEST_REST_S = 5.0
"""Seconds without work after which rank 0 looks whether the others are there, and they whether it is."""
RESTS_IN_TIMEOUT = 4


class LeadingRunner(StepRunner):
    """Rank 0's runner of a split model: what it computes, all ranks compute with it."""

    def __init__(self, model: CausalLM, num_blocks: int, block_tokens: int, *, int8_cache: bool = False) -> None:
        """Wait for the others (``follow``), and reserve the cache on all ranks.

        Raises:
            DistributedError: a rank has gone or is late.
        """
        self._wire, self._adapters = _wire(model), switched_names(model)
        self.patience_s = min(LONGEST_REST_S, self._wire.timeout_s / RESTS_IN_TIMEOUT)
        self._config = model.config
        self._is_open = True
        """Whether the others listen."""
        self._tell([BEGIN, num_blocks, block_tokens, int8_cache])
        self._own = PagedRunner(model, num_blocks, block_tokens, int8_cache=int8_cache)

    def run(self, works: Several[Work]) -> list[np.ndarray]:
        """Compute the tokens of each piece of work, on all ranks.

        Raises:
            DistributedError: a rank has gone or is late.
        """
        pieces = [make_piece(work, self._config) for work in works]
        with self._in_step():
            self._tell(np.concatenate([[STEP], pack(pieces, self._adapters)]))
            return self._own.compute(pieces)

    def rest(self) -> None:
        """Let the others know that rank 0 lives, and hear that they do.

        Raises:
            DistributedError: a rank has gone or is late.
        """
        with self._in_step():
            self._tell([REST])

    def close(self) -> None:
        """Let the others go, unless a step has failed; then they see rank 0 hang up."""
        if self._is_open:
            self._is_open = False
            self._tell([END])

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """Let nothing more be said where what is done within fails: the others are at another place then."""
        self._is_open = False
        yield
        self._is_open = True

    def _tell(self, numbers: list[int] | np.ndarray) -> None:
        self._wire.exchange(np.asarray(numbers, dtype=np.int64).tobytes(), PLACE)


def follow(model: CausalLM) -> None:
    """Compute this rank's part of every step of rank 0's engine, until that one stops.

    Args:
        model: this rank's part.

    Raises:
        DistributedError: rank 0 has gone or is late, or another rank is.
    """
    wire, adapters = _wire(model), switched_names(model)
    _, num_blocks, block_tokens, int8_cache = _hear(wire).tolist()
    runner = PagedRunner(model, num_blocks, block_tokens, int8_cache=bool(int8_cache))
    while True:
        row = _hear(wire)
        if row[0] == END:
            return
        if row[0] == STEP:
            runner.compute(unpack(row[1:], adapters))


def _hear(wire: Wire) -> np.ndarray:
    return np.frombuffer(wire.exchange(b"", PLACE)[0], dtype=np.int64)


def _wire(model: CausalLM) -> Wire:
    split = split_of(model)
    assert split is not None and split.group.wire is not None, "the model is split over several processes"
    return split.group.wire
