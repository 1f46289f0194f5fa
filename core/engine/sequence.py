"""One request inside the engine: its tokens, its blocks, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .request import TokenEvent, TokenLogprob
from .sampler import Sampler
from .stream import TextStream

if TYPE_CHECKING:
    from ..data.tokenizer import Tokenizer
    from ..registry.facts import ModelConfig
    from .handle import Handle
    from .request import FinishReason, Request


class Sequence:
    """Tokens of prompt and answer; keys and values of the first ``num_computed`` lie in ``blocks``."""

    def __init__(self, request: Request, handle: Handle, config: ModelConfig, tokenizer: Tokenizer | None) -> None:
        self.request = request
        self.handle = handle
        self.tokens = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.room = request.room(config)
        self.num_computed = 0
        self.num_remembered = 0
        self.blocks: list[int] = []
        self.salt = (request.adapter or "").encode()
        self.finish_reason: FinishReason | None = None
        self.sampler = Sampler(request)
        self.wants_prompt_logprobs = request.prompt_logprobs
        """Whether the logits of the prompt's tokens are needed, and not all of them known yet."""
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(request.settings.stop_ids)
        self._text = TextStream(tokenizer, request.settings.stop)

    @property
    def num_missing(self) -> int:
        """Tokens whose keys and values are to be computed before the next one is chosen."""
        return len(self.tokens) - self.num_computed

    def forget(self) -> None:
        """Begin again: the blocks are gone, the tokens stay."""
        self.blocks = []
        self.num_computed = self.num_remembered = 0

    def accept(self, token: int, logits_V: np.ndarray) -> TokenEvent:
        """Go on with a token and return what the sender is to be told.

        Args:
            token: chosen.
            logits_V: of the model, before anything that the request asks for.
        """
        self.sampler.accept(token)
        self.tokens.append(token)
        self.room -= 1
        is_stop = token in self._stop_ids
        text = "" if is_stop else self._text.push(token)
        if is_stop or self.room <= 0:
            text += self._text.finish()
        if is_stop or self._text.is_stopped:
            self.finish_reason = "stop"
        elif self.room <= 0:
            self.finish_reason = "length"
        count = self.request.num_logprobs
        logprob = None if count is None else self._logprob(logits_V, token, count)
        return TokenEvent(self.request.number, token, text, self.finish_reason, logprob)

    def tell_prompt(self, first: int, logits_SV: list[np.ndarray]) -> None:
        """Take note of the logits after the tokens from ``first`` on: each tells of the token after it."""
        if not self.handle.prompt_logprobs:
            self.handle.prompt_logprobs.append(None)
        count = self.request.num_logprobs or 0
        for offset, logits_V in enumerate(logits_SV):
            place = first + offset + 1
            if place < self.num_prompt and len(self.handle.prompt_logprobs) == place:
                self.handle.prompt_logprobs.append(self._logprob(logits_V, self.tokens[place], count))
        self.wants_prompt_logprobs = first + len(logits_SV) < self.num_prompt

    def _logprob(self, logits_V: np.ndarray, token: int, count: int) -> TokenLogprob:
        """Return what the model gives a token, and the likeliest ``count`` of those that can be spelled."""
        values = logits_V.astype(np.float64)
        values -= values.max()
        values -= np.log(np.exp(values).sum())
        top: list[int] = []
        if count:
            spellable = values if self._tokenizer is None else values[: self._tokenizer.vocab_size]
            best = np.argpartition(-spellable, min(count, len(spellable) - 1))[:count]
            top = [int(index) for index in best[np.argsort(-values[best], kind="stable")]]
        told = tuple((index, self._spelled(index), float(values[index])) for index in top)
        return TokenLogprob(token, self._spelled(token), float(values[token]), told)

    def _spelled(self, token: int) -> str:
        return "" if self._tokenizer is None else self._tokenizer.decode([token], skip_special=False)
