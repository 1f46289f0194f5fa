"""The objects of OpenAI's API, as its clients parse them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.request import TokenEvent, TokenLogprob


def new_id(prefix: str) -> str:
    """Return an id that nobody can guess."""
    return f"{prefix}-{secrets.token_hex(12)}"


@dataclass(slots=True)
class Answer:
    """One choice, as it grows."""

    index: int
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, event: TokenEvent) -> None:
        """Append one token's event."""
        self.text += event.text
        if event.logprob is not None:
            self.logprobs.append(event.logprob)
        self.finish_reason = event.finish_reason


@dataclass(slots=True)
class Usage:
    """Tokens of a request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def fields(self) -> dict[str, Any]:
        """Return the ``usage`` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all objects of one reply have in common."""

    id: str
    kind: str
    """``chat.completion`` or ``text_completion``."""
    model: str
    created: int

    @classmethod
    def chat(cls, model: str) -> Envelope:
        """Begin a reply to a chat request."""
        return cls(new_id("chatcmpl"), "chat.completion", model, int(time.time()))

    @classmethod
    def text(cls, model: str) -> Envelope:
        """Begin a reply to a text completion request."""
        return cls(new_id("cmpl"), "text_completion", model, int(time.time()))

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """Return a reply that is not streamed."""
        return {**self._head(self.kind), "choices": list(choices), "usage": usage.fields()}

    def chunk(self, choices: Sequence[dict[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        """Return one event of a stream; text completions have no name of their own for it."""
        kind = f"{self.kind}.chunk" if self.kind == "chat.completion" else self.kind
        said = {**self._head(kind), "choices": list(choices)}
        return said if usage is None else {**said, "usage": usage.fields()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def chat_choice(answer: Answer, wants_logprobs: bool) -> dict[str, Any]:
    """Return a finished choice of a chat."""
    return {
        "index": answer.index,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": answer.finish_reason,
        "logprobs": {"content": [chat_logprob(entry) for entry in answer.logprobs]} if wants_logprobs else None,
    }


def chat_delta(index: int, delta: dict[str, Any], *, reason: str | None = None, logprobs: Sequence[TokenLogprob] = ()
               ) -> dict[str, Any]:  # fmt: skip
    """Return a choice of one event of a chat stream."""
    said = {"content": [chat_logprob(entry) for entry in logprobs]} if logprobs else None
    return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": said}


def chat_logprob(entry: TokenLogprob) -> dict[str, Any]:
    """Return one token's log-probability, as in ``choices[].logprobs.content``."""
    top = [{"token": text, "logprob": value, "bytes": list(text.encode())} for _, text, value in entry.top]
    return {"token": entry.text, "logprob": entry.logprob, "bytes": list(entry.text.encode()), "top_logprobs": top}


def text_choice(index: int, text: str, reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    """Return a choice of a text completion, streamed or not."""
    return {"index": index, "text": text, "finish_reason": reason, "logprobs": logprobs}


def text_logprobs(entries: Sequence[TokenLogprob | None], texts: Sequence[str], start: int = 0) -> dict[str, Any]:
    """Return the four lists of a text completion; the first token of a prompt has no log-probability.

    Args:
        entries: by token.
        texts: of the tokens.
        start: characters before the first of them.
    """
    offsets, at = [], start
    for text in texts:
        offsets.append(at)
        at += len(text)
    return {
        "tokens": list(texts),
        "token_logprobs": [None if entry is None else entry.logprob for entry in entries],
        "top_logprobs": [None if entry is None else {text: value for _, text, value in entry.top} for entry in entries],
        "text_offset": offsets,
    }


def model_card(name: str, created: int, root: str | None = None) -> dict[str, Any]:
    """Return an entry of ``/v1/models``."""
    card = {"id": name, "object": "model", "created": created, "owned_by": "llm-run"}
    return card if root is None else {**card, "root": root, "parent": root}
