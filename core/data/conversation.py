"""Instruction records of several toolchains, as conversations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .chat import Message

EXPECTED = (
    'expected {"src", "tgt"}, {"messages": [{"role", "content"}]}, {"conversations": [{"from", "value"}]} '
    'or {"instruction", "input", "output"}'
)
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Roles as OpenAI's messages and ShareGPT's ``from`` name them."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one record says."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
    """JSON schemas of functions, for templates that speak of tools."""


def read_conversation(fields: Mapping[str, Any]) -> Conversation:
    """Read a record by the keys that it has.

    Raises:
        DataError: it has none of the known shapes, or a part of it is malformed. The text does not name the place.
    """
    if "messages" in fields or "conversations" in fields:
        return _read_turns(fields)
    if "src" in fields or "tgt" in fields:
        return _read_pairs(fields)
    if "instruction" in fields:
        return _read_alpaca(fields)
    raise DataError(f"has the keys {sorted(fields)}; {EXPECTED}.")


def _read_turns(fields: Mapping[str, Any]) -> Conversation:
    """OpenAI's messages and ShareGPT's conversations."""
    key = "messages" if "messages" in fields else "conversations"
    turns = fields[key]
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{key}: must be a list of turns that is not empty.")
    messages = [_read_turn(turn, f"{key}[{place}]") for place, turn in enumerate(turns)]
    if "system" in fields and messages[0].get("role") != "system" and fields["system"]:
        messages.insert(0, _message("system", fields["system"], "system"))
    return Conversation(tuple(messages), _read_tools(fields.get("tools")))


def _read_turn(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f"{where}: must be an object, not a {type(turn).__name__}.")
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"{where}: the role {role!r} is not known. Known: {', '.join(ROLES)}.")
    content = turn.get("content", turn.get("value"))
    calls = turn.get("tool_calls")
    if content is None and calls:
        content = ""
    if isinstance(content, list):
        content = _join_parts(content, where)
    message = _message(ROLES[role], content, where)
    rest = {key: turn[key] for key in ("tool_calls", "tool_call_id", "name", "reasoning_content") if turn.get(key)}
    return cast("Message", {**message, **rest})


def _join_parts(parts: list[Any], where: str) -> str:
    """Join OpenAI's content parts, all of which must be text."""
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise DataError(f"{where}: content has a part that is not text; only text can be trained on.")
    return "".join(part["text"] for part in parts)


def _read_pairs(fields: Mapping[str, Any]) -> Conversation:
    """The seed's ``src`` and ``tgt``: a text each, or lists of the rounds."""
    sides = []
    for key in ("src", "tgt"):
        if key not in fields:
            raise DataError(f"{key!r} is missing; {EXPECTED}.")
        value = fields[key]
        sides.append(value if isinstance(value, list) else [value])
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise DataError(
            f"src has {len(sides[0])} rounds and tgt has {len(sides[1])}; they must be as many, and at least one."
        )
    messages = []
    for place, (asked, answered) in enumerate(zip(*sides, strict=True)):
        messages += [_message("user", asked, f"src[{place}]"), _message("assistant", answered, f"tgt[{place}]")]
    return Conversation(tuple(messages))


def _read_alpaca(fields: Mapping[str, Any]) -> Conversation:
    """Alpaca's ``instruction``, ``input``, ``output``, with ``system`` and ``history`` where they are."""
    messages = []
    if fields.get("system"):
        messages.append(_message("system", fields["system"], "system"))
    history = fields.get("history") or []
    if not isinstance(history, list):
        raise DataError("history: must be a list of [question, answer].")
    for place, round_ in enumerate(history):
        if not isinstance(round_, list) or len(round_) != 2:
            raise DataError(f"history[{place}]: must be [question, answer].")
        messages += [
            _message("user", round_[0], f"history[{place}]"),
            _message("assistant", round_[1], f"history[{place}]"),
        ]
    if "output" not in fields:
        raise DataError(f"'output' is missing; {EXPECTED}.")
    asked = _message("user", fields["instruction"], "instruction")
    if fields.get("input"):
        asked["content"] += "\n" + _message("user", fields["input"], "input")["content"]
    return Conversation((*messages, asked, _message("assistant", fields["output"], "output")))


def _message(role: str, content: Any, where: str) -> Message:
    if not isinstance(content, str):
        raise DataError(f"{where}: must be text, not a {type(content).__name__}.")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: holds half of a surrogate pair at character {error.start}, which is no text."
        ) from error
    return cast("Message", {"role": role, "content": content})


def _read_tools(value: Any) -> tuple[dict[str, Any], ...] | None:
    """Return the functions of ``tools``: a list of schemas, or that list as JSON text (as ShareGPT sets have it)."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"tools: is not valid JSON: {error}.") from error
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError("tools: must be a list of objects.")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in value)
