"""The inference engine: requests from any thread, one thread that computes, tokens out as they come."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LlmRunError, Problem, RefusedError
from .block_pool import BlockPool
from .failures import EngineDeadError, QueueFullError
from .fused_runner import choose_runner
from .handle import Handle
from .scheduler import Scheduler, Work
from .sequence import Sequence
from .stats import EngineStats, StepCounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..causal_lm import CausalLM
    from ..data.tokenizer import Tokenizer
    from .request import Request
    from .speculation import Drafter

_log = logging.getLogger("llm_run.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine may use."""

    cache_tokens: int = 16384
    """Tokens whose keys and values fit into the cache."""
    block_tokens: int = 16
    step_tokens: int = 512
    """Tokens computed in one step, at most."""
    max_running: int = 64
    """Requests answered at once."""
    max_waiting: int = 256
    """Requests that may wait; one more is refused."""
    int8_cache: bool = False
    """Keys and values are rounded to 8 bits, which takes little more than a quarter of the memory of float32."""


class Engine:
    """Answers requests, as many at once as there is room for.

    Every answer is, in float32 with greedy search, the one that the request alone would get. ``start`` begins, and
    then every method may be called from any thread.
    """

    def __init__(
        self, model: CausalLM, tokenizer: Tokenizer | None, limits: EngineLimits | None = None, *,
        drafter: Drafter | None = None,
    ) -> None:  # fmt: skip
        """Reserve the cache.

        Args:
            model: ready to generate.
            tokenizer: gives the texts; ``None`` for tokens only.
            limits: of the engine.
            drafter: guesses tokens ahead, which changes no answer; ``None`` for nobody.
        """
        self.limits = limits or EngineLimits()
        self.config = model.config
        self._tokenizer = tokenizer
        num_tokens = self.config.vocab_size if tokenizer is None else tokenizer.vocab_size
        self._spellable = slice(num_tokens) if num_tokens < self.config.vocab_size else None
        """Logits of tokens that the tokenizer has, where the model's vocabulary is padded."""
        blocks = max(1, self.limits.cache_tokens // self.limits.block_tokens)
        self._pool = BlockPool(blocks, self.limits.block_tokens)
        is_prefix = model.config.prefix_lm
        self._scheduler = Scheduler(
            self._pool, max_tokens=self.limits.step_tokens, max_running=self.limits.max_running,
            cuts_prompts=not is_prefix, shares=not is_prefix, drafter=drafter,
        )  # fmt: skip
        self._runner = choose_runner(model, blocks, self.limits.block_tokens, int8_cache=self.limits.int8_cache)
        self._changed = threading.Condition()
        self._arrived: deque[Sequence] = deque()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._stops = False
        self._counts = StepCounts()
        self.is_draining = False
        """Whether no new requests are taken."""
        self.before_step: Callable[[], None] | None = None
        """Called by the engine's thread before each step: who must tell others of the last one may ask for time."""

    @property
    def failure(self) -> BaseException | None:
        """What the engine has died of; ``None`` while it has not."""
        return self._failure

    @property
    def is_alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread is not None and self._thread.is_alive() and self._failure is None

    def start(self) -> None:
        """Begin to answer, in a thread of its own."""
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Handle:
        """Take a request in.

        Raises:
            RefusedError: it can never fit, or the model has no such token.
            QueueFullError: too many wait already.
            EngineDeadError: the engine does not run.
        """
        handle = Handle(len(request.prompt))
        sequence = Sequence(request, handle, self.config, self._tokenizer)
        longest = len(request.prompt) + sequence.room
        if self._pool.blocks_for(longest) > self._pool.num_blocks:
            most = self._pool.num_blocks * self._pool.block_tokens
            reason = f"need {longest} tokens of the cache, which holds {most}"
            raise RefusedError(Problem("prompt and answer", "", reason, "Ask for a shorter answer."))
        strange = [token for token in request.prompt if not 0 <= token < self.config.vocab_size]
        if strange:
            reason = f"is not in the vocabulary of the model, which has {self.config.vocab_size} tokens"
            raise RefusedError(Problem("prompt", f"token {strange[0]}", reason, "Use the model's own tokenizer."))
        with self._changed:
            if not self.is_alive or self.is_draining:
                raise EngineDeadError("the engine takes no requests")
            if len(self._arrived) + len(self._scheduler.waiting) >= self.limits.max_waiting:
                raise QueueFullError(f"{self.limits.max_waiting} requests wait already")
            self._arrived.append(sequence)
            self._changed.notify()
        return handle

    def stats(self) -> EngineStats:
        """Return figures of this moment."""
        scheduler, pool = self._scheduler, self._pool
        return EngineStats(
            running=len(scheduler.running), waiting=len(scheduler.waiting) + len(self._arrived),
            cache_usage=1 - pool.num_free / pool.num_blocks, preemptions=scheduler.num_preempted,
            prefix_queries=pool.queries, prefix_hits=pool.hits, counts=replace(self._counts),
        )  # fmt: skip

    def drain(self, deadline_s: float) -> bool:
        """Take no new requests and wait for the others; return whether all ended in time."""
        self.is_draining = True
        end = time.monotonic() + deadline_s
        while self.is_alive and (self._arrived or self._scheduler.waiting or self._scheduler.running):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self) -> None:
        """End the thread, and let the other ranks of a split model go; what is not finished fails.

        Raises:
            DistributedError: one of them has gone since.
        """
        with self._changed:
            self._stops = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._runner.close()

    def check(self) -> None:
        """Make sure that no block is lost; for an engine that is idle.

        Raises:
            AssertionError: one is.
        """
        self._pool.check()

    def _loop(self) -> None:
        try:
            while self._take_in():
                self._step()
            reason = EngineDeadError("the engine was stopped")
        except BaseException as error:
            _log.exception("the engine has died")
            self._failure = error
            reason = EngineDeadError(f"the engine has died ({type(error).__name__})")
        with self._changed:
            open_ones = [*self._scheduler.running, *self._scheduler.waiting, *self._arrived]
        for sequence in open_ones:
            sequence.handle.fail(reason)

    def _take_in(self) -> bool:
        """Wait for work, take new requests in and let cancelled ones go; false when it is time to stop."""
        scheduler = self._scheduler
        while not self._is_wanted():
            with self._changed:
                is_wanted = self._changed.wait_for(self._is_wanted, self._runner.patience_s)
            if not is_wanted:
                self._runner.rest()
        if self._arrived:
            with self._changed:
                scheduler.waiting.extend(self._arrived)
                self._arrived.clear()
        for sequence in [*scheduler.running, *scheduler.waiting]:
            if sequence.handle.is_cancelled:
                scheduler.finish(sequence)
                sequence.handle.fail(LlmRunError("the request was cancelled"))
        return not self._stops

    def _is_wanted(self) -> bool:
        """Whether there is something to compute, or the end has come."""
        return bool(self._stops or self._arrived or self._scheduler.waiting or self._scheduler.running)

    def _step(self) -> None:
        if self.before_step is not None:
            self.before_step()
        self._counts.begin_step()
        works = self._scheduler.schedule()
        if not works:
            return
        computed, is_decoding = 0, True
        for work in works:
            computed += work.num_tokens
            is_decoding = is_decoding and work.start >= work.sequence.num_prompt
        logits = self._runner.run(works)
        self._counts.add_step(computed, is_decoding=is_decoding)
        try:
            taken = 0
            for work in works:
                end = taken + work.num_results
                self._take(work, logits[taken:end])
                taken = end
        finally:
            # After the last choice: who is told earlier takes the interpreter away from the choices still to come.
            for work in works:
                work.sequence.handle.wake()

    def _take(self, work: Work, logits_RV: list[np.ndarray]) -> None:
        """Choose the next token of a sequence whose tokens are all computed, and more where its guesses were right."""
        sequence = work.sequence
        if sequence.wants_prompt_logprobs:
            sequence.tell_prompt(sequence.num_computed, logits_RV)
        self._scheduler.computed(work)
        if not work.completes:
            return
        self._counts.guessed += len(work.draft)
        for place, logits_V in enumerate(logits_RV[-1 - len(work.draft) :]):
            token = self._choose(sequence, logits_V)
            if sequence.handle.is_finished or place == len(work.draft) or work.draft[place] != token:
                return
            sequence.num_computed += 1  # the guess was computed behind what is chosen now
            self._counts.guessed_right += 1

    def _choose(self, sequence: Sequence, logits_V: np.ndarray) -> int | None:
        """Go on with one token; ``None`` where the request fails."""
        sampler = sequence.sampler
        spellable_V = logits_V if self._spellable is None else logits_V[self._spellable]
        likeliest = int(spellable_V.argmax())  # of what is not a number, where there is any
        if not math.isfinite(spellable_V.item(likeliest)):
            self._scheduler.finish(sequence)
            sequence.handle.fail(LlmRunError("the model's logits hold NaN or infinity: its weights are damaged"))
            return None
        token = likeliest if sampler.wants_argmax else sampler.pick(spellable_V.copy())
        event = sequence.accept(token, logits_V)
        if sequence.finish_reason is not None:
            self._scheduler.finish(sequence)
        self._counts.add_token()
        sequence.handle.put(event)
        return token
