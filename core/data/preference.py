"""Preference records of several toolchains: a conversation, and two answers of which one is the better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .conversation import Conversation, read_conversation

if TYPE_CHECKING:
    from .chat import Message

EXPECTED = (
    'expected "chosen" and "rejected" beside {"conversations": ...}, {"messages": ...}, {"prompt": ...} or '
    '{"instruction", "input"}, or {"src", "tgt", "response": [two], "sort": [two]}'
)


@dataclass(frozen=True, slots=True)
class Preference:
    """What one record says. Both conversations end in an answer, and are the same before it."""

    chosen: Conversation
    rejected: Conversation


def read_preference(fields: Mapping[str, Any]) -> Preference:
    """Read a record by the keys that it has.

    Known are LLaMA-Factory's (``conversations`` or ``instruction``), TRL's (``prompt``, or two whole conversations)
    and PaddleNLP's (``src``, ``tgt`` with the answers before the last one, ``response`` and ``sort``).

    Raises:
        DataError: it has none of the known shapes, or a part of it is malformed. The text does not name the place.
    """
    if "response" in fields:
        return _read_sorted(fields)
    if "chosen" not in fields or "rejected" not in fields:
        raise DataError(f"has the keys {sorted(fields)}; {EXPECTED}.")
    rest = {key: value for key, value in fields.items() if key not in ("chosen", "rejected")}
    before = _before(rest)
    if before is None:
        return _checked(*(_whole(fields[side], side) for side in ("chosen", "rejected")))
    turns = (_turn(fields[side], side) for side in ("chosen", "rejected"))
    return _checked(*(replace(before, messages=(*before.messages, turn)) for turn in turns))


def _before(fields: Mapping[str, Any]) -> Conversation | None:
    """Return the conversation that both answers continue; ``None``: each side brings a whole one."""
    if "conversations" in fields or "messages" in fields:
        return read_conversation(fields)
    if "instruction" in fields:
        asked = read_conversation({**fields, "output": ""})
        return replace(asked, messages=asked.messages[:-1])
    prompt = fields.get("prompt")
    if prompt is None:
        return None
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return read_conversation({**fields, "messages": turns})


def _whole(value: Any, side: str) -> Conversation:
    try:
        return read_conversation({"messages": value})
    except DataError as error:
        raise DataError(f"{side}: without a prompt beside it, it must be a whole conversation: {error}") from error


def _turn(value: Any, side: str) -> Message:
    """Return an answer: a text, a turn, or a list of one turn."""
    turns = [{"role": "assistant", "content": value}] if isinstance(value, str) else value
    turns = [turns] if isinstance(turns, Mapping) else turns
    try:
        messages = read_conversation({"messages": turns}).messages
    except DataError as error:
        raise DataError(f"{side}: {error}") from error
    if len(messages) != 1:
        raise DataError(f"{side}: has {len(messages)} turns; expected one answer.")
    return messages[0]


def _read_sorted(fields: Mapping[str, Any]) -> Preference:
    """PaddleNLP's: ``tgt`` is one answer shorter than ``src``, and ``sort`` has the larger number for the better."""
    answers, order = fields["response"], fields.get("sort")
    if not isinstance(answers, list) or len(answers) != 2:
        raise DataError("response: must be a list of two answers.")
    if not isinstance(order, list) or [type(place) for place in order] != [int, int] or order[0] == order[1]:
        raise DataError("sort: must be two different numbers, the larger one for the better answer.")
    better = 0 if order[0] > order[1] else 1
    src, tgt = (value if isinstance(value, list) else [value] for value in (fields.get("src"), fields.get("tgt") or []))
    if len(src) != len(tgt) + 1:
        raise DataError(f"src has {len(src)} rounds and tgt has {len(tgt)}; tgt must be one shorter.")
    rest = {key: value for key, value in fields.items() if key == "tools"}
    sides = (read_conversation({**rest, "src": src, "tgt": [*tgt, answers[place]]}) for place in (better, 1 - better))
    return _checked(*sides)


def _checked(chosen: Conversation, rejected: Conversation) -> Preference:
    for side, conversation in (("chosen", chosen), ("rejected", rejected)):
        if conversation.messages[-1]["role"] != "assistant":
            raise DataError(f"{side}: is a turn of the {conversation.messages[-1]['role']}, not of the assistant.")
    if chosen.messages[:-1] != rejected.messages[:-1]:
        raise DataError("chosen and rejected: differ before their last answer, so that they do not compare.")
    if len(chosen.messages) < 2:
        raise DataError("chosen and rejected: answer nothing, since no turn stands before them.")
    if chosen.messages[-1] == rejected.messages[-1]:
        raise DataError("chosen and rejected: are the same answer.")
    return Preference(chosen, rejected)
