"""Reading a ``config.json`` for a family: typed values, with every problem reported at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUIRED: Any = object()
"""Default of a field that must be there."""


class FieldReader:
    """Takes values out of a ``config.json`` by name, and gathers what is wrong with them.

    A field may have several names (Hugging Face's, PaddleNLP's); the first one present counts, and ``null`` counts
    as absent. A value that cannot be used is replaced by a harmless one, so that reading goes on to the next problem;
    ``check`` then raises for all of them.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._problems: list[Problem] = []

    def integer(self, *names: str, default: int = REQUIRED, least: int = 1) -> int:
        """Return a whole number of at least ``least``."""
        value = self._get(names, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self._wrong(names, value, f"is not a whole number of at least {least}")
            return least
        return value

    def number(self, *names: str, default: float = REQUIRED) -> float:
        """Return a number above zero."""
        value = self._get(names, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            self._wrong(names, value, "is not a number above zero")
            return 1.0
        return float(value)

    def share(self, *names: str, default: float = REQUIRED) -> float:
        """Return a number from 0 up to 1, without 1: a dropout."""
        value = self._get(names, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            self._wrong(names, value, "is not a share from 0 up to 1")
            return 0.0
        return float(value)

    def flag(self, *names: str, default: bool) -> bool:
        """Return true or false."""
        value = self._get(names, default)
        if not isinstance(value, bool):
            self._wrong(names, value, "is neither true nor false")
            return default
        return value

    def token_id(self, *names: str, vocab_size: int, default: int = REQUIRED) -> int:
        """Return the id of a token of a vocabulary of ``vocab_size``."""
        number = self.integer(*names, default=default, least=0)
        if number >= vocab_size:
            remedy = "Write the tokenizer's id there."
            self._wrong(names, number, f"is not below vocab_size ({vocab_size})", remedy)
        return number

    def only(self, *names: str, allowed: tuple[Any, ...], remedy: str) -> None:
        """Accept a field that changes the numbers only where its value is one of ``allowed``, or where it is absent."""
        value = self._get(names, None)
        if value is not None and value not in allowed:
            self._wrong(names, value, "is not supported here", remedy)

    def refuse(self, name: str, value: object, reason: str, remedy: str = "") -> None:
        """Note a problem that the family found itself."""
        self._wrong((name,), value, reason, remedy)

    def has(self, name: str) -> bool:
        """Whether a field is there, and not ``null``."""
        return self._fields.get(name) is not None

    def check(self) -> None:
        """Raise if anything was wrong.

        Raises:
            RefusedError: with every problem noted so far.
        """
        if self._problems:
            raise RefusedError(*self._problems)

    def _get(self, names: tuple[str, ...], default: Any) -> Any:
        for name in names:
            if self._fields.get(name) is not None:
                return self._fields[name]
        return default

    def _wrong(self, names: tuple[str, ...], value: object, reason: str, remedy: str = "") -> None:
        key = f"config.json: {names[0]}"
        if value is REQUIRED:
            problem = Problem(key, "", "is missing", "Add it: without it the shape of the model is not known.")
        else:
            problem = Problem(key, repr(value), reason, remedy or "Mend the file.")
        self._problems.append(problem)
