"""Many prompts through an engine of their own, the answers in the order of the prompts."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .engine import Engine, EngineLimits
from .request import Completion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..causal_lm import CausalLM
    from ..data.tokenizer import Tokenizer
    from .handle import Handle
    from .request import Request
    from .speculation import Drafter

DEFAULT = EngineLimits()
WAITING_PER_RUNNING = 2
"""Requests that are handed in ahead, so that one that is long delays nobody but those who wait for its place."""


@contextmanager
def running_engine(
    model: CausalLM,
    tokenizer: Tokenizer | None,
    lengths: Sequence[int],
    *,
    max_running: int | None = None,
    drafter: Drafter | None = None,
    int8_cache: bool = False,
) -> Iterator[Engine]:
    """Start an engine for a known amount of work, and stop it.

    Args:
        model: ready to generate.
        tokenizer: gives the texts; ``None`` for tokens only.
        lengths: of each prompt with its longest answer, in tokens.
        max_running: answered at once; by default as many as the cache holds.
        drafter: guesses tokens ahead.
        int8_cache: keep keys and values in 8 bits.
    """
    at_once = max_running or DEFAULT.max_running
    block = DEFAULT.block_tokens
    rounded = sorted((-(-length // block) * block for length in lengths), reverse=True)
    needed = min(sum(rounded[:at_once]), max(DEFAULT.cache_tokens, rounded[0]))
    limits = EngineLimits(
        cache_tokens=needed, max_running=at_once, max_waiting=WAITING_PER_RUNNING * at_once, int8_cache=int8_cache
    )
    engine = Engine(model, tokenizer, limits, drafter=drafter)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def answer_in_order(engine: Engine, requests: Iterable[Request]) -> Iterator[tuple[Completion, Handle]]:
    """Yield the answers as soon as all before them are there.

    Raises:
        RefusedError: a request can never fit.
        LlmRunError: a request has failed.
    """
    left = iter(requests)
    open_ones: deque[Handle] = deque()
    most = engine.limits.max_waiting
    while True:
        while len(open_ones) < most and (request := next(left, None)) is not None:
            open_ones.append(engine.submit(request))
        if not open_ones:
            return
        handle = open_ones.popleft()
        completion = Completion(handle.num_prompt)
        for event in handle:
            completion.add(event)
        yield completion, handle
