"""Chat templates: one renderer for training, generation and serving."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..errors import DataError

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Largest file a template is looked for in (tokenizer_config.json with thousands of reserved tokens has 1 MB)."""


class Message(TypedDict, total=False):
    """One turn of a conversation, as in OpenAI's API."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """How a conversation becomes text."""

    jinja: str
    """A Jinja template over ``messages``, ``add_generation_prompt``, ``bos_token``, ``eos_token``, as in Hugging
    Face's ``chat_template``."""
    stop: tuple[str, ...] = ()
    """Tokens that end a turn of the assistant, besides the tokenizer's own (``<|im_end|>``)."""
    adds_special: bool = False
    """The tokenizer's ``prompt`` is applied to the rendered ids as well (families whose template lacks the start)."""
    last_only: bool = False
    """Only the last answer is learnt, and only it needs an end token: what stands before it is a context that sees
    itself both ways (prefix language models)."""
    seed_frame: tuple[str, str] = ("", "")
    """What a ``chat_template.json`` of PaddleNLP leaves to the family's tokenizer: special tokens before all, and
    between the last question and its answer. They become part of the template that such a file is turned into."""


def load_chat_template(choice: str | None, directory: Path | None, default: ChatTemplate | None) -> ChatTemplate | None:
    """Find the chat template of a run.

    Args:
        choice: ``--chat_template``: ``none``, a file, a folder, or ``None`` for the model's own.
        directory: the model directory (or a GGUF file, which brings no template here).
        default: the family's own; its stop tokens, and what is learnt, are kept whatever template is found.

    Returns:
        The template, or ``None`` where there is none or it was turned off.

    Raises:
        DataError: a file is missing or malformed; the text names it.
    """
    if choice is not None and choice.lower() == "none":
        return None
    if choice is not None:
        chosen = Path(choice)
        if not chosen.exists():
            raise DataError(
                f"--chat_template: {choice} does not exist. Give a file, a folder that holds one, or `none`."
            )
        found = (_from_directory if chosen.is_dir() else _from_file)(chosen, default)
        if found is None:
            raise DataError(
                f"--chat_template: {choice} holds no chat template (chat_template.jinja, "
                "tokenizer_config.json or chat_template.json)."
            )
    else:
        found = _from_directory(directory, default) if directory is not None and directory.is_dir() else None
    if found is None:
        return default
    if default is None:
        return found
    return replace(found, stop=tuple(dict.fromkeys((*found.stop, *default.stop))), last_only=default.last_only)


def _from_directory(directory: Path, default: ChatTemplate | None) -> ChatTemplate | None:
    """Look where Hugging Face and PaddleNLP put templates; a ``chat_template.jinja`` wins over the other files."""
    for name in ("chat_template.jinja", "tokenizer_config.json", "chat_template.json"):
        path = directory / name
        if path.is_file() and (found := _from_file(path, default)) is not None:
            return found
    return None


def _from_file(path: Path, default: ChatTemplate | None) -> ChatTemplate | None:
    """Read one file; ``None``: a JSON file that speaks of other things only."""
    from .sandbox import check_template  # Jinja is loaded for runs that render only

    text = _read_text(path)
    if path.suffix != ".json":
        check_template(text, str(path))
        return ChatTemplate(jinja=text)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise DataError(f"{path}: must hold a JSON object.")
    if "chat_template" in fields:
        jinja = _named_default(fields["chat_template"], path)
        check_template(jinja, str(path))
        return ChatTemplate(jinja=jinja)
    if {"query", "conversation"} & fields.keys():
        from .seed_template import compile_seed_template

        return compile_seed_template(fields, path, ("", "") if default is None else default.seed_frame)
    return None


def _named_default(value: Any, path: Path) -> str:
    """Return the template of ``tokenizer_config.json``: a string, or the one named default in a list."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
        if value is None:
            raise DataError(
                f"{path}: chat_template: the list has no template named 'default', only {sorted(map(str, named))}."
            )
    if not isinstance(value, str):
        raise DataError(f"{path}: chat_template: must be text or a list of named texts.")
    return value


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path}: {size} bytes is too large for a file with a chat template.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text: {error}.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
