"""The predecessor's ``POST /api/chat``, so that its clients keep working.

Source: PaddleNLP, llm/flask_server.py: the request's fields, and one JSON object a line in the answer. Unlike there,
fields may be left out, and none of them changes the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..data.chat import Message
from .fields import Fields, parse_body, wrong
from .schema import MAX_CHARACTERS, MAX_MESSAGES, MAX_TOKENS, ChatRequest, Wanted

if TYPE_CHECKING:
    from .service import Service

ROLES = {"user": "user", "bot": "assistant"}


def answer_seed_chat(service: Service, body: Mapping[str, Any]) -> Iterator[bytes]:
    """Check the request, then yield the lines of its answer.

    Raises:
        ApiError: a field is malformed, or the server is full; before the first line.
    """
    pieces = service.pieces(read_seed_chat(body))
    first = next(pieces, "")

    def lines() -> Iterator[bytes]:
        try:
            yield _line(first)
            for piece in pieces:
                yield _line(piece)
        finally:
            pieces.close()  # type: ignore[attr-defined]

    return lines()


def read_seed_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Read the predecessor's fields; the page sends the current turn in ``history`` as well, with an empty answer.

    Raises:
        ApiError: 400, naming the field.
    """
    fields = Fields(body)
    context = fields.text("context", "", longest=MAX_CHARACTERS)
    if not context:
        raise wrong("context", "must be text that is not empty")
    wanted = Wanted(
        model=None, max_tokens=fields.integer("max_length", 256, low=1, high=MAX_TOKENS),
        temperature=fields.number("temperature", 0.95, low=0.0, high=2.0),
        top_p=fields.number("top_p", 0.7, low=0.0, high=1.0),
        top_k=fields.integer("top_k", 0, low=0, high=1 << 20), min_p=0.0,
        repetition_penalty=fields.number("repetition_penalty", 1.0, low=0.01, high=10.0),
        presence_penalty=0.0, frequency_penalty=0.0, logit_bias={}, seed=None, stop=(), ignore_eos=False, n=1,
        top_logprobs=None, stream=True, include_usage=False,
    )  # fmt: skip
    return ChatRequest(wanted=wanted, messages=(*_history(fields, context), Message(role="user", content=context)))


def _history(fields: Fields, context: str) -> list[Message]:
    """Return the turns before the current one."""
    told = fields.get("history")
    if told is None or told == "":
        return []
    if isinstance(told, str):
        told = parse_body(b'{"history": ' + told.encode() + b"}")["history"]
    if not isinstance(told, list) or len(told) > MAX_MESSAGES:
        raise wrong("history", f"must be a list of at most {MAX_MESSAGES} turns, or such a list as text")
    turns = []
    for index, turn in enumerate(told):
        said, role = (turn.get("utterance"), turn.get("role")) if isinstance(turn, dict) else (None, None)
        role = ROLES.get(role) if isinstance(role, str) else None
        if role is None or not isinstance(said, str):
            raise wrong(f"history[{index}]", 'must have the role "user" or "bot" and an utterance')
        turns.append(Message(role=role, content=said))  # type: ignore[typeddict-item]
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    if turns and turns[-1] == Message(role="user", content=context):
        turns.pop()
    return turns


def _line(piece: str) -> bytes:
    response = {"role": "bot", "utterance": piece}
    said = {"error_code": 0, "error_msg": "Success", "result": {"response": response}}
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"
