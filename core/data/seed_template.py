"""PaddleNLP's ``chat_template.json``, turned into the Jinja template that says the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .chat import ChatTemplate
from .sandbox import check_template

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEYS = ("system", "conversation", "query")
PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
EXPRESSION = re.compile(r"(\w+)(?:\s*([+-])\s*(\d{1,6}))?")
ROUNDS = """\
{%- set turns = namespace(index=0) -%}
{%- set length = messages | selectattr('role', 'equalto', 'user') | list | length -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{%- set index = turns.index -%}
{%- if loop.last and add_generation_prompt -%}
__QUERY__
{%- else -%}
__USER__
{%- endif -%}
__OPEN__
{%- elif message['role'] == 'assistant' and turns.index < length -%}
{%- set index = turns.index -%}
__BOT__
__CLOSE__
{%- set turns.index = turns.index + 1 -%}
{%- else -%}
{{- raise_exception('its turns are user and assistant only, and its system text is fixed') -}}
{%- endif -%}
{%- endfor -%}
"""
LAST_ROUND = "{{%- if index == length - 1 -%}}{{{{- {} -}}}}{{%- endif -%}}"


def compile_seed_template(fields: Mapping[str, Any], path: Path, frame: tuple[str, str] = ("", "")) -> ChatTemplate:
    """Translate ``system``, ``conversation`` and ``query``.

    Text is literal; ``{{user}}``, ``{{query}}``, ``{{bot}}``, ``{{index}}``, ``{{index+1}}`` and ``{{length}}`` are
    replaced in one pass, so that braces in what a user types are only text. ``conversation`` renders every round, and
    ``query`` the last question while its answer is awaited; where one of the two is missing the other stands in.

    Args:
        fields: the file's JSON object.
        path: the file, for messages.
        frame: the family's ``ChatTemplate.seed_frame``. Where an answer is set apart from its question, PaddleNLP
            ends it with the end token, too.

    Raises:
        DataError: a key is unknown or has the wrong shape, or a placeholder is unknown.
    """
    if unknown := sorted(set(fields) - set(KEYS)):
        raise DataError(f"{path}: {unknown[0]!r} is not a key of a chat template. Known: {', '.join(KEYS)}.")
    conversation = fields.get("conversation")
    texts = conversation if conversation is not None else [fields.get("query"), "{{bot}}"]
    if not (isinstance(texts, list) and len(texts) == 2 and all(isinstance(text, str) for text in texts)):
        raise DataError(f"{path}: conversation: must be two texts, one for the user's turn and one for the answer.")
    system, query = fields.get("system") or "", fields.get("query", texts[0])
    if not isinstance(system, str) or not isinstance(query, str):
        raise DataError(f"{path}: system and query must be texts.")
    asked = ("user", "query")
    parts = {
        "__QUERY__": _jinja(query, asked, path),
        "__USER__": _jinja(texts[0], asked, path),
        "__BOT__": _jinja(texts[1], ("bot",), path),
        "__OPEN__": LAST_ROUND.format(_quoted(frame[1])) if frame[1] else "",
        "__CLOSE__": LAST_ROUND.format("eos_token") if frame[1] else "",
    }
    rounds = re.sub("__[A-Z]+__", lambda match: parts[match.group()], ROUNDS)
    jinja = f"{{{{- {json.dumps(frame[0] + system, ensure_ascii=False)} -}}}}\n{rounds}"
    check_template(jinja, str(path))
    ending = texts[1].rpartition("}}")[2].strip()
    return ChatTemplate(jinja=jinja, stop=(ending,) if ending else ())


def _jinja(text: str, content: tuple[str, ...], path: Path) -> str:
    """Return the Jinja expression that joins the literal parts of ``text`` and its placeholders.

    ``content`` names the placeholders that stand for what the turn says.
    """
    parts, done = [], 0
    for match in PLACEHOLDER.finditer(text):
        known = (*content, "index", "length")
        expression = EXPRESSION.fullmatch(match.group(1).strip())
        if expression is None or expression.group(1) not in known:
            names = ", ".join("{{" + name + "}}" for name in (*known, "index+1"))
            raise DataError(f"{path}: {match.group()} is not a placeholder in {text[:60]!r}. Known there: {names}.")
        name, sign, number = expression.groups()
        value = name if name in ("index", "length") else "message['content']"
        parts += [_quoted(text[done : match.start()]), f"({value} {sign} {number})" if sign else value]
        done = match.end()
    return "{{- " + " ~ ".join(part for part in (*parts, _quoted(text[done:])) if part) + " -}}"


def _quoted(text: str) -> str:
    """Write literal text as a Jinja string; empty text as nothing."""
    return json.dumps(text, ensure_ascii=False) if text else ""
