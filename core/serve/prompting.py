"""From a request of the API to one of the engine: template, tokens, limits, settings."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data.render import render_prompt
from ..engine.request import Request
from ..engine.settings import SamplingSettings
from ..errors import DataError
from .errors import ApiError
from .fields import wrong

if TYPE_CHECKING:
    from ..data.chat import ChatTemplate, Message
    from ..data.tokenizer import Tokenizer
    from .schema import Wanted


CHARACTERS_A_TOKEN = 8
"""Text has two to five; where it has more, the whole is tokenized before it is judged."""


class Prompting:
    """What one served model makes of texts and conversations."""

    def __init__(
        self, name: str, tokenizer: Tokenizer, template: ChatTemplate | None, stop_ids: Sequence[int], *,
        max_length: int, vocab_size: int, adapters: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Describe the model.

        Args:
            name: of the model.
            tokenizer: of the model.
            template: writes conversations; ``None`` where there is none.
            stop_ids: tokens that end an answer.
            max_length: of prompt and answer together, in tokens.
            vocab_size: of the model.
            adapters: the engine's names of adapters, by those that clients use.
        """
        self.names = [name, *adapters]
        self.max_length = max_length
        self._tokenizer, self._template = tokenizer, template
        self._stop_ids = tuple(stop_ids)
        self._vocab_size = min(vocab_size, tokenizer.vocab_size)
        self._adapters = adapters

    def of_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation.

        Raises:
            ApiError: 400; the template refuses it, or there is no template, or it is too long.
        """
        if self._template is None:
            raise ApiError(400, "this model has no chat template; use /v1/completions")
        for message in messages:
            self._check_text(str(message.get("content") or ""), "messages")
        try:
            return self._fitting(render_prompt(self._template, self._tokenizer, messages), "messages")
        except DataError as error:
            raise ApiError(400, f"messages: {error}", param="messages") from error

    def of_text(self, prompt: str | list[int]) -> list[int]:
        """Return the tokens of a prompt, which may be tokens already.

        Raises:
            ApiError: 400; it is empty or too long, or a token does not exist.
        """
        if isinstance(prompt, str):
            self._check_text(prompt, "prompt")
            return self._fitting(self.encode(prompt, special=True), "prompt")
        if not all(0 <= token < self._vocab_size for token in prompt):
            raise wrong("prompt", f"has token ids outside 0 to {self._vocab_size - 1}")
        return self._fitting(prompt, "prompt")

    def request(self, prompt: list[int], wanted: Wanted, *, number: int, prompt_logprobs: bool) -> Request:
        """Return the engine's request."""
        room = self.max_length - len(prompt)
        most = room if wanted.max_tokens is None else min(wanted.max_tokens, room)
        unknown = [token for token in wanted.logit_bias if token >= self._vocab_size]
        if unknown:
            raise wrong("logit_bias", f"has token ids outside 0 to {self._vocab_size - 1}")
        settings = SamplingSettings(
            strategy="greedy_search" if wanted.temperature == 0 else "sampling", max_new_tokens=most,
            temperature=wanted.temperature, top_k=wanted.top_k, top_p=wanted.top_p, min_p=wanted.min_p,
            repetition_penalty=wanted.repetition_penalty, presence_penalty=wanted.presence_penalty,
            frequency_penalty=wanted.frequency_penalty, logit_bias=dict(wanted.logit_bias),
            stop_ids=() if wanted.ignore_eos else self._stop_ids, stop=wanted.stop,
            seed=secrets.randbits(48) if wanted.seed is None else wanted.seed,
        )  # fmt: skip
        return Request(
            prompt=prompt, settings=settings, number=number, num_logprobs=wanted.top_logprobs,
            prompt_logprobs=prompt_logprobs, adapter=self._adapters.get(wanted.model or ""),
        )  # fmt: skip

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the tokens of a text; special tokens that it spells stay plain text."""
        ids = self._tokenizer.encode(text)
        return self._tokenizer.prompt(ids) if special else ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones left out.

        Raises:
            ApiError: 400; a token does not exist.
        """
        if not all(0 <= token < self._vocab_size for token in tokens):
            raise wrong("tokens", f"must be from 0 to {self._vocab_size - 1}")
        return self._tokenizer.decode(list(tokens))

    def info(self) -> dict[str, Any]:
        """Return the special tokens by name, and the sizes."""
        named = {"bos_token": self._tokenizer.bos_id, "eos_token": self._tokenizer.eos_id}
        spelled = self._tokenizer.decode
        tokens = {key: None if token is None else spelled([token], skip_special=False) for key, token in named.items()}
        return {**tokens, "vocab_size": self._vocab_size, "model_max_length": self.max_length}

    def _check_text(self, text: str, name: str) -> None:
        """Refuse a text that is far too long by its beginning: megabytes are not tokenized to be thrown away."""
        beginning = self.max_length * CHARACTERS_A_TOKEN
        if len(text) > beginning:
            self._fitting(self._tokenizer.encode(text[:beginning]), name, least="more than ")

    def _fitting(self, prompt: list[int], name: str, *, least: str = "") -> list[int]:
        if not prompt:
            raise wrong(name, "is empty")
        if len(prompt) >= self.max_length:
            raise ApiError(
                400, f"{name}: {least}{len(prompt)} tokens leave no room in the model's {self.max_length}", param=name,
                code="context_length_exceeded",
            )  # fmt: skip
        return prompt
