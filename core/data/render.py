"""Conversations to token ids: for generation, and with the mask of what is learnt for training."""

from __future__ import annotations

import bisect
import functools
import re
import secrets
from typing import TYPE_CHECKING, Any

from ..errors import DataError

NONCE = secrets.token_hex(8)
HIDDEN = re.compile(f"\U000f0000{NONCE}\\.(\\d+)\U000f0001")
"""What stands in for a special token that a message spells, until the text is encoded; no text can guess it."""
NOTHING = r"(?!)"
"""A pattern that matches nowhere."""

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .chat import ChatTemplate, Message
    from .tokenizer import Tokenizer


def render_prompt(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """Return the ids after which the assistant's next turn follows.

    A special token that a message spells (``<|im_end|>``) is encoded as plain text.

    Args:
        template: how the conversation becomes text.
        tokenizer: the model's.
        messages: the conversation so far.
        tools: JSON schemas of the functions that the assistant may call, for templates that speak of tools.

    Raises:
        DataError: the template refuses the conversation or fails on it.
    """
    conversation = _Conversation(template, tokenizer, messages, tools)
    ids = conversation.encode(conversation.render(len(messages), awaits=True))
    return tokenizer.prompt(ids) if template.adds_special else ids


def render_training(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation up to its last answer, and which of them are learnt.

    Learnt are the assistant's turns with their end token. What comes before the last answer is, id for id, what
    ``render_prompt`` gives for it.

    Raises:
        DataError: the template refuses the conversation, renders it differently for training than for generation,
            or leaves the end of an answer outside of what is learnt.
    """
    conversation = _Conversation(template, tokenizer, messages, tools)
    text = conversation.render(len(messages), awaits=False)
    turns = conversation.answers(text)
    last_start, last_end = turns[-1]
    text = text[:last_end]
    prompt = conversation.encode(text[:last_start])
    ids = conversation.encode(text)
    if ids[: len(prompt)] != prompt:
        # A token reaches over the border ("\n" of the template with "\n" of the answer): generation starts at it.
        ids = prompt + conversation.encode_after(text[:last_start], text[last_start:])
    supervised = [False] * len(prompt) + [True] * (len(ids) - len(prompt))
    borders = conversation.borders(prompt, text[:last_start], [place for turn in turns[:-1] for place in turn])
    for first, stop in zip(borders[::2], borders[1::2], strict=True):
        supervised[first:stop] = [True] * (stop - first)
    if not template.adds_special:
        return ids, supervised
    framed = tokenizer.prompt([-1])
    before, after = framed[: framed.index(-1)], framed[framed.index(-1) + 1 :]
    end = len(prompt)
    return (
        [*before, *ids[:end], *after, *ids[end:]],
        [*[False] * len(before), *supervised[:end], *[False] * len(after), *supervised[end:]],
    )


class _Spelling:
    """Special tokens that messages spell, under names that no text can guess."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._tokens = tokens
        self.pattern = _any_of(tokens)

    def hide(self, value: Any) -> Any:
        """Replace special tokens in all texts of a message, whatever its shape."""
        if isinstance(value, str):
            return self.pattern.sub(self._name, value)
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        if isinstance(value, dict):
            return {self.hide(key): item if key == "role" else self.hide(item) for key, item in value.items()}
        return value

    def restore(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """Return the text with the tokens back in place, and where they are."""
        parts, spans, done, length = [], [], 0, 0
        for match in HIDDEN.finditer(text):
            token = self._tokens[int(match.group(1))]
            parts += [text[done : match.start()], token]
            length += match.start() - done
            spans.append((length, length + len(token)))
            length += len(token)
            done = match.end()
        return "".join((*parts, text[done:])), spans

    def _name(self, match: re.Match[str]) -> str:
        return f"\U000f0000{NONCE}.{self._tokens.index(match.group())}\U000f0001"


@functools.cache
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that finds any of ``tokens``, the longest first where several begin at one place."""
    longest_first = sorted((token for token in tokens if token), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or NOTHING)


def _equal_part(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many elements two sequences begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


class _Conversation:
    """One conversation with its template and tokenizer; special tokens that messages spell are hidden."""

    def __init__(
        self,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._spelling = _Spelling(tokenizer.special_tokens)
        self._messages: list[dict[str, Any]] = [self._spelling.hide(dict(message)) for message in messages]
        roles = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
        self._names = {
            role: tokenizer.decode([number], skip_special=False) for role, number in roles.items() if number is not None
        }
        self._tools = None if tools is None else self._spelling.hide(list(tools))

    def render(self, count: int, *, awaits: bool) -> str:
        """Render the first ``count`` messages; ``awaits``: up to where the assistant's turn begins."""
        from .sandbox import render_template  # Jinja is loaded for runs that render only

        return render_template(
            self._template.jinja,
            {
                "messages": self._messages[:count],
                "tools": self._tools,
                "documents": None,
                "add_generation_prompt": awaits,
                **self._names,
            },
        )

    def encode(self, text: str) -> list[int]:
        """Encode rendered text: the template's special tokens are special, those of messages are plain text."""
        restored, spans = self._spelling.restore(text)
        return self._tokenizer.encode(restored, allow_special=True, plain_spans=spans)

    def encode_after(self, before: str, text: str) -> list[int]:
        """Encode rendered text that follows other text: after the same special token, which is then left out."""
        token = next((match.group() for match in reversed(self._marks(before))), "")
        return self.encode(token + text)[1 if token else 0 :]

    def borders(self, ids: list[int], text: str, places: Sequence[int]) -> list[int]:
        """Return how many of ``ids``, which are those of ``text``, lie before each of the places in it.

        A token that reaches over a place counts as before it.

        Raises:
            DataError: a special token of the template is not one token.
        """
        marks = self._marks(text)
        numbers = [self._tokenizer.token_id(match.group()) for match in marks]
        known_numbers = set(numbers)
        at = [index for index, number in enumerate(ids) if number in known_numbers]
        if [ids[index] for index in at] != numbers:
            raise DataError(
                "chat template: the tokenizer does not take every special token of the template as one token, so that "
                "it cannot be said which tokens are an answer."
            )
        ends = [match.end() for match in marks]
        found = []
        for place in places:
            known = bisect.bisect_right(ends, place)
            begin, first = (ends[known - 1], at[known - 1] + 1) if known else (0, 0)
            part = self.encode_after(text[:begin], text[begin:place]) if known else self.encode(text[:place])
            equal = _equal_part(ids[first : first + len(part)], part)
            found.append(first + (equal if equal == len(part) else equal + 1))
        return found

    def _marks(self, text: str) -> list[re.Match[str]]:
        """Return the special tokens in rendered text, which all are the template's."""
        return list(self._spelling.pattern.finditer(text))

    def answers(self, text: str) -> list[tuple[int, int]]:
        """Return where each of the assistant's turns begins and ends in the whole rendered text, end token included."""
        places = [place for place, message in enumerate(self._messages) if message.get("role") == "assistant"]
        if not places:
            raise DataError("chat template: the conversation has no turn of the assistant, so that nothing is learnt.")
        if self._template.last_only:
            places = places[-1:]
        starts = [len(self._prompt_of(place, text)) for place in places]
        ends = _any_of(self._end_tokens())
        turns = []
        for start, limit in zip(starts, [*starts[1:], len(text)], strict=True):
            match = ends.search(text, start, limit)
            if match is None:
                known = ", ".join(self._end_tokens())
                raise DataError(
                    f"chat template: no end token ({known}) follows an answer, so that the model would not learn to "
                    "stop. Put one after the answer in the template."
                )
            turns.append((start, match.end()))
        return turns

    def _prompt_of(self, place: int, text: str) -> str:
        prompt = self.render(place, awaits=True)
        if not text.startswith(prompt):
            raise DataError(
                f"chat template: message {place + 1} is rendered differently for training than for generation: "
                f"generation continues {prompt[-60:]!r}, which is not how the conversation begins."
            )
        return prompt

    def _end_tokens(self) -> tuple[str, ...]:
        tokenizer = self._tokenizer
        named = [token for token in self._template.stop if token in tokenizer.special_tokens]
        own = [tokenizer.decode([number], skip_special=False) for number in tokenizer.stop_ids]
        return tuple(dict.fromkeys(token for token in (*named, *own) if token))
