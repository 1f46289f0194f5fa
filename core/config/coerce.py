"""Turn what a file or a flag says into the option's type, or say why it is not one."""

from __future__ import annotations

import math
from typing import Any

from ..errors import Problem
from .schema import Option

WORDS = {"true": True, "t": True, "yes": True, "y": True, "1": True, "on": True} | {
    "false": False, "f": False, "no": False, "n": False, "0": False, "off": False
}  # fmt: skip


def coerce(option: Option, value: Any) -> Any:
    """Return ``value`` as the option's type; files may hold strings for numbers and 1/0 for booleans.

    Args:
        option: what is set.
        value: from JSON or YAML, or the string of a flag.

    Returns:
        The typed value, or a ``Problem`` whose key the caller replaces by the user's spelling.
    """
    if value is False and "no" in option.choices:
        value = "no"  # a bare `no` in YAML
    if value is None or (option.kind is not str and str(value).lower() in ("none", "null")):
        return None if option.optional else option.default  # null in the seed's files: nobody says otherwise
    read = {bool: _bool, int: _int, float: _float, str: _str, tuple: _tuple}[option.kind](value)
    if read is None:
        return _problem(option, value, f"is not {_wanted(option)}")
    if option.choices and read not in option.choices:
        return _problem(option, value, f"is not one of {', '.join(option.choices)}")
    return read


def _wanted(option: Option) -> str:
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "one text (put quotes around words that belong together)",
        tuple: "a list of texts",
    }[option.kind]


def _problem(option: Option, value: Any, reason: str) -> Problem:
    return Problem(option.name, repr(value), reason)


def _bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return WORDS.get(str(value).lower()) if isinstance(value, int | str) else None


def _int(value: Any) -> int | None:
    number = _float(value)
    if number is None or number != int(number):
        return None
    return int(value) if isinstance(value, int | str) and str(value).lstrip("+-").isdigit() else int(number)


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _str(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _tuple(value: Any) -> tuple[str, ...] | None:
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(map(str, items)) if all(isinstance(item, str | int | float) for item in items) else None
