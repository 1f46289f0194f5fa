"""Reading tokenizer files: size caps, and one error that names the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

MAX_VOCABULARY_BYTES = 128 * 1024 * 1024
"""Largest vocabulary file; the largest published one (262 144 tokens, tokenizer.json) has 34 MB."""
MAX_SETTINGS_BYTES = 16 * 1024 * 1024
"""Largest tokenizer_config.json and the like; those with thousands of reserved tokens have 1 MB."""


def read_bytes(path: Path, *, most: int = MAX_VOCABULARY_BYTES) -> bytes:
    """Return a file's content.

    Raises:
        DataError: the file is missing, unreadable, or larger than ``most`` bytes.
    """
    try:
        size = path.stat().st_size
        if size > most:
            raise DataError(f"{path}: {size} bytes is too large for this file. At most {most} bytes are read.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error


def cause(error: BaseException) -> str:
    """Return what a library says about a file, on one line and without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def parse_json_object(content: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object in ``content``, which was read from ``path``.

    Raises:
        DataError: it is not valid JSON, or not an object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON: {cause(error)}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: must hold a JSON object, not a {type(value).__name__}.")
    return value
