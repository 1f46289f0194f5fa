"""Who is computed in the next step: one budget of tokens, shared by prompts and answers alike.

Source: Kwon et al. 2023, arXiv:2309.06180, section 4.5 (preemption by recomputation); Agrawal et al. 2024,
arXiv:2403.02310, section 4 (prompts in chunks beside answers).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .block_pool import BlockPool
    from .sequence import Sequence
    from .speculation import Drafter


@dataclass(slots=True)
class Work:
    """What one sequence does in a step."""

    sequence: Sequence
    num_tokens: int
    """Of its missing ones, from the first on."""
    draft: tuple[int, ...] = ()
    """Guesses that are computed behind them; there are none unless the work completes the sequence."""
    start: int = field(init=False)
    """Place of the first token that is computed."""
    size: int = field(init=False)
    """Tokens that are computed."""
    completes: bool = field(init=False)
    """Whether the next token can be chosen afterwards."""
    num_results: int = field(init=False)
    """How many of the last tokens have logits that are wanted."""

    def __post_init__(self) -> None:
        sequence = self.sequence
        self.start = sequence.num_computed
        self.size = self.num_tokens + len(self.draft)
        self.completes = self.num_tokens == sequence.num_missing
        if sequence.wants_prompt_logprobs:
            self.num_results = self.size
        else:
            self.num_results = 1 + len(self.draft) if self.completes else 0

    @property
    def stop(self) -> int:
        """Place after the last token that is computed."""
        return self.start + self.size

    @property
    def new_ids(self) -> list[int]:
        """Tokens that are computed."""
        return [*self.sequence.tokens[self.start : self.start + self.num_tokens], *self.draft]


class Scheduler:
    """Running sequences first, in the order of their arrival, then waiting ones, as long as there is room.

    Where blocks run out, the newest running sequence gives up its own and waits again, at the front; in such a step
    nobody new is admitted. A prompt that sees itself both ways is never cut.
    """

    def __init__(
        self, pool: BlockPool, *, max_tokens: int, max_running: int, cuts_prompts: bool, shares: bool,
        drafter: Drafter | None = None,
    ) -> None:  # fmt: skip
        """Begin with nobody.

        Args:
            pool: of the cache's blocks.
            max_tokens: computed in one step, at most.
            max_running: sequences at once, at most.
            cuts_prompts: a prompt may be computed in several steps.
            shares: prompts that begin alike share blocks.
            drafter: guesses tokens where a step has room left; ``None`` for nobody.
        """
        self.pool = pool
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preempted = 0
        self._max_tokens, self._max_running = max_tokens, max_running
        self._cuts, self._shares = cuts_prompts, shares
        self._drafter = drafter

    def schedule(self) -> list[Work]:
        """Choose the work of one step; blocks for it are allocated."""
        works: list[Work] = []
        budget, preempted = self._max_tokens, self.num_preempted
        for sequence in list(self.running):
            if self.num_preempted != preempted and sequence not in self.running:
                continue  # it gave up its blocks for an older one
            amount = self._amount(sequence, budget, is_first=not works)
            if amount and self._make_room(sequence, amount):
                works.append(Work(sequence, amount))
                budget -= amount
        if self.num_preempted != preempted:
            works = [work for work in works if work.sequence in self.running]
        while self.waiting and preempted == self.num_preempted and len(self.running) < self._max_running and budget > 0:
            work = self._admit(self.waiting[0], budget, is_first=not works)
            if work is None:
                break
            works.append(work)
            budget -= work.num_tokens
        return works if self._drafter is None else self._with_drafts(works, self._drafter, budget)

    def finish(self, sequence: Sequence) -> None:
        """Let a sequence go, wherever it is."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self.pool.release(sequence.blocks)
        sequence.forget()

    def computed(self, work: Work) -> None:
        """Take note that a piece of work is done."""
        sequence = work.sequence
        sequence.num_computed += work.num_tokens
        if self._shares and sequence.num_computed >= (sequence.num_remembered + 1) * self.pool.block_tokens:
            known = sequence.tokens[: sequence.num_computed]
            sequence.num_remembered = self.pool.remember(sequence.blocks, known, sequence.num_remembered, sequence.salt)

    def _amount(self, sequence: Sequence, budget: int, *, is_first: bool) -> int:
        """Return how many tokens of a sequence fit into the budget."""
        missing = sequence.num_missing
        if missing <= budget:
            return missing
        if self._cuts:
            return max(0, budget)
        return missing if is_first else 0

    def _admit(self, sequence: Sequence, budget: int, *, is_first: bool) -> Work | None:
        """Let the first waiting sequence run, if it fits."""
        if self._shares and not sequence.wants_prompt_logprobs:
            sequence.blocks = self.pool.find(sequence.tokens, sequence.salt)
            sequence.num_computed = len(sequence.blocks) * self.pool.block_tokens
            sequence.num_remembered = len(sequence.blocks)
        amount = self._amount(sequence, budget, is_first=is_first)
        needed = self.pool.blocks_for(sequence.num_computed + amount) - len(sequence.blocks)
        if amount == 0 or needed > self.pool.num_free:
            self.pool.release(sequence.blocks)
            sequence.forget()
            return None
        if not sequence.handle.num_generated:
            sequence.handle.num_cached = sequence.num_computed
        self.running.append(sequence)  # first: who waits for the last one to end must see it in either
        self.waiting.popleft()
        self._extend(sequence, amount)
        return Work(sequence, amount)

    def _make_room(self, sequence: Sequence, amount: int) -> bool:
        """Allocate a running sequence's blocks, taking them from newer ones; false where it had to give way itself."""
        needed = self.pool.blocks_for(sequence.num_computed + amount) - len(sequence.blocks)
        if needed <= 0:
            return True
        while needed > self.pool.num_free:
            newest = self.running[-1]
            self.waiting.appendleft(newest)
            self.running.remove(newest)
            self.pool.release(newest.blocks)
            newest.forget()
            self.num_preempted += 1
            if newest is sequence:
                return False
        self._extend(sequence, amount)
        return True

    def _with_drafts(self, works: list[Work], drafter: Drafter, budget: int) -> list[Work]:
        """Spend what is left of the budget, and blocks that nobody owns, on guesses."""
        drafted = []
        for work in works:
            sequence = work.sequence
            slots = (len(sequence.blocks) + self.pool.num_free) * self.pool.block_tokens
            most = min(budget, sequence.room - 1, slots - work.stop)
            if work.completes and not sequence.wants_prompt_logprobs and most > 0:
                work = Work(sequence, work.num_tokens, tuple(drafter.propose(sequence, most)))
                self._extend(sequence, work.size)
                budget -= len(work.draft)
            drafted.append(work)
        return drafted

    def _extend(self, sequence: Sequence, amount: int) -> None:
        while len(sequence.blocks) < self.pool.blocks_for(sequence.num_computed + amount):
            block = self.pool.allocate()
            assert block is not None, "the room was counted before"
            sequence.blocks.append(block)
