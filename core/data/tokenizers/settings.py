"""What a family says about its special tokens, and what the files beside the vocabulary say over it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from .files import MAX_SETTINGS_BYTES, parse_json_object, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Small files beside the vocabulary that are saved again as they were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """Special tokens of a family, by their text."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    """``None``: the vocabulary has no padding token; the end token stands in."""
    stop: tuple[str, ...] = ()
    """Tokens that end a generated text, besides ``eos``."""
    prefix: tuple[str, ...] | None = None
    """Tokens before a prompt without chat template; ``None``: as the files say, or none."""
    suffix: tuple[str, ...] = ()
    """Tokens after a prompt without chat template."""
    further: tuple[str, ...] = ()
    """Special tokens without a role here, that lie in the vocabulary as if they were text (``[MASK]``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The facts after the files have been read."""

    facts: TokenFacts
    added: Mapping[str, int] = field(default_factory=dict)
    """Tokens beside the vocabulary file that the settings files give an id."""
    stop_ids: tuple[int, ...] = ()
    """End tokens of ``generation_config.json``, by id."""
    legacy: bool | None = None
    """SentencePiece: a space is put after every special token, as Hugging Face did before 2023."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Content of the settings files, by name."""


def read_settings(directory: Path, facts: TokenFacts) -> Settings:
    """Lay what the files in ``directory`` say over ``facts``.

    Raises:
        DataError: a settings file is malformed; the text names it.
    """
    files = {
        name: read_bytes(directory / name, most=MAX_SETTINGS_BYTES)
        for name in SETTINGS_FILES
        if (directory / name).is_file()
    }
    fields = {name: parse_json_object(content, directory / name) for name, content in files.items()}
    config = fields.get("tokenizer_config.json", {})
    spoken = {**fields.get("special_tokens_map.json", {}), **config}
    where = directory / "tokenizer_config.json"
    for role in ("bos", "eos", "pad"):
        key = f"{role}_token"
        if key in spoken:
            facts = _with_role(facts, role, _token_text(spoken[key], key, where))
    add_bos = config.get("add_bos_token")
    if isinstance(add_bos, bool):
        facts = dataclasses.replace(facts, prefix=(facts.bos,) if add_bos and facts.bos else ())
    legacy = config.get("legacy")
    return Settings(
        facts=facts,
        added={
            **_added_tokens(fields.get("added_tokens.json", {}), directory / "added_tokens.json"),
            **_decoder_tokens(config, where),
        },
        stop_ids=_generation_stops(directory / "generation_config.json"),
        legacy=legacy if isinstance(legacy, bool) else None,
        files=files,
    )


def _with_role(facts: TokenFacts, role: str, token: str | None) -> TokenFacts:
    """Return the facts with one role given to ``token``; a file that names no padding token leaves the family's."""
    if role == "pad":
        return dataclasses.replace(facts, pad=token or facts.pad)
    return dataclasses.replace(facts, bos=token) if role == "bos" else dataclasses.replace(facts, eos=token)


def _token_text(value: Any, key: str, path: Path) -> str | None:
    """Return a token's text: a string, Hugging Face's object with ``content``, or null for none."""
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise DataError(f"{path}: {key}: {text!r} is not the text of a token.")
    return text or None


def _added_tokens(fields: Mapping[str, Any], path: Path) -> dict[str, int]:
    for token, number in fields.items():
        if type(number) is not int or number < 0:
            raise DataError(f"{path}: {token!r}: {number!r} is not a token id.")
    return dict(fields)


def _decoder_tokens(config: Mapping[str, Any], path: Path) -> dict[str, int]:
    entries = config.get("added_tokens_decoder", {})
    if not isinstance(entries, dict):
        raise DataError(f"{path}: added_tokens_decoder: must be an object from id to token.")
    added = {}
    for number, entry in entries.items():
        text = _token_text(entry, "added_tokens_decoder", path)
        if text is None or not number.isdecimal():
            raise DataError(f"{path}: added_tokens_decoder: {number!r} is not a token id with its token.")
        added[text] = int(number)
    return added


def _generation_stops(path: Path) -> tuple[int, ...]:
    """Return the end tokens of ``generation_config.json``: chat models list those of a turn there."""
    if not path.is_file():
        return ()
    stops = parse_json_object(read_bytes(path, most=MAX_SETTINGS_BYTES), path).get("eos_token_id")
    if stops is None:
        return ()
    numbers = stops if isinstance(stops, list) else [stops]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise DataError(f"{path}: eos_token_id: {stops!r} is not a token id or a list of them.")
    return tuple(numbers)
