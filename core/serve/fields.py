"""The fields of a request's JSON, read with bounds: nothing is done for a request before all of them hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .errors import ApiError

MAX_DEPTH = 32
"""Nesting of a request; real ones have four levels or so."""


def parse_body(data: bytes) -> Mapping[str, Any]:
    """Parse a request's body.

    Raises:
        ApiError: it is no JSON object, is nested too deeply, or holds a number that JSON does not have.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object")
    _check_depth(value)
    return value


class Fields:
    """Reads one field after the other; ``null`` counts as left out."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body

    def get(self, name: str) -> Any:
        """Return a field as it is."""
        return self._body.get(name)

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        """Return a number from ``low`` to ``high``."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise wrong(name, "must be a number")
        if not low <= value <= high:
            raise wrong(name, f"must be {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(name, "must be a whole number")
        if not low <= value <= high:
            raise wrong(name, f"must be {low} to {high}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong(name, "must be true or false")
        return value

    def text(self, name: str, default: str, *, longest: int) -> str:
        """Return a text of at most ``longest`` characters."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise wrong(name, "must be text")
        if len(value) > longest:
            raise wrong(name, f"has {len(value)} characters; at most {longest} are allowed")
        return value

    def strings(self, name: str, *, most: int, longest: int) -> tuple[str, ...]:
        """Return one text or a list of them, none of them empty."""
        value = self.get(name)
        if value is None:
            return ()
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise wrong(name, "must be text or a list of texts")
        if len(listed) > most:
            raise wrong(name, f"has {len(listed)} texts; at most {most} are allowed")
        for text in listed:
            if not 0 < len(text) <= longest:
                raise wrong(name, f"must hold texts of 1 to {longest} characters")
        return tuple(listed)


def wrong(name: str, what: str) -> ApiError:
    """Return the error for a field; its value is not repeated, since it may be anything."""
    return ApiError(400, f"{name}: {what}", param=name)


def _check_depth(value: Any) -> None:
    """Walk without recursion: the value comes from a stranger. Texts must be Unicode, without halves of characters."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ApiError(400, f"the body is nested more than {MAX_DEPTH} levels deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
        if any(isinstance(item, str) and any("\ud800" <= letter <= "\udfff" for letter in item) for item in below):
            raise ApiError(400, "the body holds half a character (a lone surrogate)")
        level = [item for item in below if isinstance(item, dict | list)]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
