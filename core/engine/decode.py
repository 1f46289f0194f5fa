"""Generates the answers to a batch of prompts, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

from .beam import beam_search
from .request import Completion, Request, TokenEvent
from .runner import BatchRunner
from .sampler import Sampler
from .settings import SamplingSettings
from .stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.tokenizer import Tokenizer
    from .request import FinishReason
    from .runner import BatchModel


def generate(
    model: CausalLM | BatchModel,
    prompts: Sequence[list[int]],
    settings: SamplingSettings | Sequence[SamplingSettings],
    *,
    tokenizer: Tokenizer | None = None,
    numbers: Sequence[int] | None = None,
    on_token: Callable[[TokenEvent], None] | None = None,
) -> list[Completion]:
    """Answer ``prompts`` as one batch; every answer is what its prompt alone would get.

    Args:
        model: the network.
        prompts: token ids, at least one each.
        settings: for all prompts, or one for each; beam search is not mixed with other strategies.
        tokenizer: gives the texts; needed where there are stop strings.
        numbers: set the random numbers of the prompts apart; default: their places in ``prompts``.
        on_token: called with every token of ``greedy_search`` and ``sampling`` as it comes (beam search knows its
            tokens only at the end).

    Raises:
        RefusedError: a prompt is empty or leaves no room in the model's positions.
        LlmRunError: the model's logits are not finite.
    """
    chosen = [settings] * len(prompts) if isinstance(settings, SamplingSettings) else settings
    numbers = range(len(prompts)) if numbers is None else numbers
    requests = [
        Request(prompt=prompt, settings=one, number=number)
        for prompt, one, number in zip(prompts, chosen, numbers, strict=True)
    ]
    kinds = {request.settings.strategy == "beam_search" for request in requests}
    assert len(kinds) < 2, "beam search and other strategies cannot share a batch"
    if True in kinds:
        return beam_search(model, requests, tokenizer=tokenizer)
    completions = [Completion(num_prompt_tokens=len(prompt)) for prompt in prompts]
    for event in stream(model, requests, tokenizer=tokenizer):
        completions[event.index].add(event)
        if on_token is not None:
            on_token(event)
    return completions


def stream(
    model: CausalLM | BatchModel, requests: Sequence[Request], *, tokenizer: Tokenizer | None = None
) -> Generator[TokenEvent]:
    """Answer ``requests`` as one batch and yield every token as it comes; closing the iterator cancels the rest.

    Raises:
        RefusedError: a prompt is empty or leaves no room in the model's positions.
        LlmRunError: the model's logits are not finite.
    """
    if not requests:
        return
    rows = [_Row(index, request, model, tokenizer) for index, request in enumerate(requests)]
    runner = BatchRunner(model, [request.prompt for request in requests], reserve=max(row.room for row in rows))
    logits_BV = runner.prefill()
    while True:
        tokens = _choose(rows, logits_BV, None if tokenizer is None else tokenizer.vocab_size)
        for row, token in zip(rows, tokens, strict=True):
            yield row.accept(token)
        running = [place for place, row in enumerate(rows) if row.finish_reason is None]
        if not running:
            return
        if len(running) < len(rows):
            runner.select(running)
            rows = [rows[place] for place in running]
        logits_BV = runner.step([row.last for row in rows])


class _Row:
    """One request while it is being answered."""

    def __init__(self, index: int, request: Request, model: CausalLM | BatchModel, tokenizer: Tokenizer | None) -> None:
        self.index = index
        self.room = request.room(model.config)
        self.sampler = Sampler(request)
        self.last = request.prompt[-1]
        self.finish_reason: FinishReason | None = None
        self._stop_ids = frozenset(request.settings.stop_ids)
        self._text = TextStream(tokenizer, request.settings.stop)

    def accept(self, token: int) -> TokenEvent:
        """Go on with ``token`` and say what there is to show."""
        self.sampler.accept(token)
        self.last = token
        self.room -= 1
        is_stop = token in self._stop_ids
        text = "" if is_stop else self._text.push(token)
        if is_stop or self.room == 0:
            text += self._text.finish()
        if is_stop or self._text.is_stopped:
            self.finish_reason = "stop"
        elif self.room == 0:
            self.finish_reason = "length"
        return TokenEvent(self.index, token, text, self.finish_reason)


def _choose(rows: Sequence[_Row], logits_BV: Tensor, vocab_size: int | None) -> list[int]:
    # A model's vocabulary may be padded above the tokenizer's; such tokens have no text.
    if vocab_size is not None and vocab_size < logits_BV.shape[1]:
        logits_BV = logits_BV[:, :vocab_size]
    tokens: list[int] = [0] * len(rows)
    if any(row.sampler.wants_argmax for row in rows):
        tokens = [int(token) for token in paddle.argmax(logits_BV, axis=-1).numpy()]
    for place, row in enumerate(rows):
        if not row.sampler.wants_argmax:
            tokens[place] = row.sampler.pick(logits_BV[place].numpy())
    return tokens
