"""The tokenizer inside a GGUF file, as a ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .gguf_header import read_header
from .gguf_vocabulary import BYTE_LEVEL, SENTENCE_PIECE, Vocabulary, build_byte_level, build_sentence_piece

if TYPE_CHECKING:
    from ..data.tokenizer import Tokenizer

PREFIX = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"


def load_gguf_tokenizer(path: Path) -> Tokenizer:
    """Build the tokenizer of a GGUF file: byte-level BPE (``gpt2``) or SentencePiece BPE (``llama``).

    Raises:
        DataError: the file holds no tokenizer, or one of another kind.
        WeightError: the header is damaged.
    """
    from ..data.tokenizers import JsonTokenizer, TokenFacts

    metadata = read_header(path).metadata
    vocabulary = _read_vocabulary(path, metadata)
    kind = metadata[f"{PREFIX}model"]
    if kind == BYTE_LEVEL:
        tokenizer = build_byte_level(vocabulary)
    elif kind == SENTENCE_PIECE:
        tokenizer = build_sentence_piece(vocabulary)
    else:
        raise DataError(f"{path}: {PREFIX}model: {kind!r} cannot be read, only {BYTE_LEVEL!r} and {SENTENCE_PIECE!r}.")
    roles = _roles(path, metadata, vocabulary)
    adds_bos = bool(metadata.get(f"{PREFIX}add_bos_token", vocabulary.adds_bos_by_default)) and "bos" in roles
    content = _with_prefix(tokenizer, roles, adds_bos).encode()
    stops = (metadata.get(f"{PREFIX}{name}_token_id") for name in ("eot", "eom"))
    facts = TokenFacts(
        bos=roles.get("bos"),
        eos=roles.get("eos"),
        pad=roles.get("pad"),
        stop=tuple(vocabulary.token(path, number) for number in stops if number is not None),
        prefix=(roles["bos"],) if adds_bos else (),
    )
    files = {"tokenizer.json": content, "tokenizer_config.json": _settings(metadata, roles, adds_bos)}
    return JsonTokenizer.from_content(content, source=path, facts=facts, files=files)


def read_chat_template(path: Path) -> str | None:
    """Return the Jinja template in a GGUF file's metadata, or ``None`` where it has none."""
    template = read_header(path).metadata.get(TEMPLATE)
    return template if isinstance(template, str) else None


def _read_vocabulary(path: Path, metadata: dict[str, Any]) -> Vocabulary:
    tokens = metadata.get(f"{PREFIX}tokens")
    if not isinstance(metadata.get(f"{PREFIX}model"), str) or not _are_texts(tokens) or not tokens:
        raise DataError(f"{path}: holds no tokenizer. Give the original one with --tokenizer_name_or_path.")
    types = metadata.get(f"{PREFIX}token_type", [1] * len(tokens))
    scores = metadata.get(f"{PREFIX}scores", [0.0] * len(tokens))
    merges = metadata.get(f"{PREFIX}merges", [])
    if not _are_texts(merges) or not isinstance(types, list) or not isinstance(scores, list):
        raise DataError(f"{path}: merges, types or scores of the tokens are not lists.")
    if len(types) != len(tokens) or len(scores) != len(tokens):
        raise DataError(f"{path}: {len(tokens)} tokens have {len(types)} types and {len(scores)} scores.")
    return Vocabulary(
        path=path,
        tokens=tokens,
        types=types,
        scores=scores,
        merges=merges,
        pattern=str(metadata.get(f"{PREFIX}pre", "default")),
        space_prefix=metadata.get(f"{PREFIX}add_space_prefix", True),
        is_sentence_piece=metadata[f"{PREFIX}model"] == SENTENCE_PIECE,
        unknown_id=metadata.get(f"{PREFIX}unknown_token_id"),
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _roles(path: Path, metadata: dict[str, Any], vocabulary: Vocabulary) -> dict[str, str]:
    """Return the tokens that play a part, by Hugging Face's name of it."""
    names = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
    ids = {role: metadata.get(f"{PREFIX}{name}_token_id") for name, role in names.items()}
    return {role: vocabulary.token(path, number) for role, number in ids.items() if number is not None}


def _with_prefix(tokenizer: Any, roles: dict[str, str], adds_bos: bool) -> str:
    """Return the ``tokenizer.json``; it puts the first token before a text where the file says so."""
    if adds_bos:
        from tokenizers import processors

        bos = roles["bos"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return str(tokenizer.to_str(pretty=False))


def _settings(metadata: dict[str, Any], roles: dict[str, str], adds_bos: bool) -> bytes:
    """Return the ``tokenizer_config.json`` that transformers reads beside a ``tokenizer.json``."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": token for role, token in roles.items()},
        "add_bos_token": adds_bos,
        "clean_up_tokenization_spaces": False,
    }
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if length is not None:
        settings["model_max_length"] = length
    if isinstance(metadata.get(TEMPLATE), str):
        settings["chat_template"] = metadata[TEMPLATE]
    return (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()
