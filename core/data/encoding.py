"""Conversations to token ids and what is learnt of them, within the longest lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import DataError
from .conversation import read_conversation
from .render import render_prompt, render_training
from .sample import IGNORED, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .chat import ChatTemplate, Message
    from .conversation import Conversation
    from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoded:
    """One record as tokens, before labels are shifted."""

    ids: list[int]
    supervised: list[bool]
    cut: bool
    """Something was left out: to keep a length, or rounds that only a chat template could write."""


class RecordEncoder(Protocol):
    """How the records of a task become tokens."""

    @property
    def max_length(self) -> int:
        """Longest sample in tokens."""

    @property
    def group_size(self) -> int:
        """Samples that a record becomes, which stay together."""

    def encode_record(self, fields: Mapping[str, Any]) -> list[Encoded]:
        """Encode the fields of a record.

        Raises:
            DataError: it is malformed, or nothing is left to learn of it. The text does not name the place.
        """


@dataclass(frozen=True, slots=True)
class Encoder:
    """How records become tokens in one run."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    src_length: int
    """Longest prompt in tokens, where prompt and answer do not fit together."""
    max_length: int
    """Longest record in tokens."""

    @property
    def group_size(self) -> int:
        """A record is one sample."""
        return 1

    def encode_record(self, fields: Mapping[str, Any]) -> list[Encoded]:
        """Read and encode the fields of an instruction record."""
        return [self.encode(read_conversation(fields))]

    def encode(self, conversation: Conversation) -> Encoded:
        """Encode one conversation.

        Raises:
            DataError: it cannot be rendered, or nothing is left to learn of it. The text does not name the place.
        """
        encoded = self._plain(conversation) if self.template is None else self._chat(self.template, conversation)
        if not any(encoded.supervised[1:]):
            raise DataError(f"nothing is left to learn within max_length {self.max_length}: the prompt fills it.")
        return encoded

    def _plain(self, conversation: Conversation) -> Encoded:
        """The seed's rule for one round without template.

        The prompt loses its left end, the answer its right end; only an answer that is whole gets the end token.
        """
        asked, answered = _first_round(conversation)
        tokenizer = self.tokenizer
        room = self.src_length - len(tokenizer.prompt([]))
        question, answer = tokenizer.encode(asked), tokenizer.encode(answered)
        prompt = tokenizer.prompt(question[max(0, len(question) - room) :])
        room = self.max_length - len(prompt)
        cut = len(answer) > room or len(prompt) < len(tokenizer.prompt(question)) or len(conversation.messages) > 2
        target = answer[:room]
        if len(target) < room and tokenizer.eos_id is not None:
            target = [*target, tokenizer.eos_id]
        return Encoded(prompt + target, [False] * len(prompt) + [True] * len(target), cut)

    def _chat(self, template: ChatTemplate, conversation: Conversation) -> Encoded:
        """Whole rounds are left out from the oldest on; a system message stays."""
        messages = _up_to_last_answer(conversation.messages)
        for left_out, kept in enumerate(without_old_rounds(messages)):
            ids, supervised = render_training(template, self.tokenizer, kept, tools=conversation.tools)
            if len(ids) <= self.max_length:
                return Encoded(ids, supervised, left_out > 0)
        kept = self.shorten_question(template, kept, conversation)
        ids, supervised = render_training(template, self.tokenizer, kept, tools=conversation.tools)
        return Encoded(ids[: self.max_length], supervised[: self.max_length], True)

    def shorten_question(
        self, template: ChatTemplate, messages: list[Message], conversation: Conversation
    ) -> list[Message]:
        """Cut the end of the last question until the prompt keeps ``src_length``; the template around it stays."""
        place = next(place for place, message in enumerate(messages) if message["role"] == "assistant") - 1
        if place < 0 or messages[place]["role"] != "user":
            return messages
        content = self.tokenizer.encode(messages[place]["content"])
        while True:
            prompt = render_prompt(template, self.tokenizer, messages[: place + 1], tools=conversation.tools)
            excess = len(prompt) - self.src_length
            if excess <= 0 or not content:
                return messages
            content = content[: max(0, len(content) - excess)]
            shorter = self.tokenizer.decode(content).rstrip("\ufffd")
            messages = [*messages[:place], {**messages[place], "content": shorter}, *messages[place + 1 :]]


def without_old_rounds(messages: Sequence[Message]) -> list[list[Message]]:
    """Return the conversation whole, then without its oldest round, and so on; a system message stays."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    rounds = [place for place, message in enumerate(messages) if message["role"] == "user"] or [len(system)]
    return [[*system, *messages[start:]] for start in (len(system), *rounds[1:])]


def to_sample(ids: np.ndarray, supervised: np.ndarray) -> Sample:
    """Shift the labels of one record: token t is asked for token t + 1 where that one is supervised.

    Args:
        ids: int [n].
        supervised: bool [n]; at least one beyond the first is True.
    """
    first = int(supervised.argmax())
    size = len(ids) - 1
    return Sample(
        ids=ids[:-1].astype(np.int64),
        labels=np.where(supervised[1:], ids[1:], IGNORED).astype(np.int64),
        segments=np.ones(size, dtype=np.int32),
        prefix=np.arange(size) < first,
    )


def _first_round(conversation: Conversation) -> tuple[str, str]:
    """Return the first question and answer; without template there is no way to write more."""
    first = conversation.messages[:2]
    if [message["role"] for message in first] != ["user", "assistant"] or conversation.tools:
        raise DataError(
            "system messages, tools and turns in another order than user, assistant need a chat template "
            "(--chat_template)."
        )
    return first[0]["content"], first[1]["content"]


def _up_to_last_answer(messages: tuple[Message, ...]) -> list[Message]:
    last = max((place for place, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    if last < 0:
        raise DataError("the conversation has no turn of the assistant, so that nothing is learnt.")
    return list(messages[: last + 1])
