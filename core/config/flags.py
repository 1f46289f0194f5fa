"""Split the command line into flags and their words; what they mean is decided later, with files in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import Problem, RefusedError

SWITCHES = {
    "help": "show this text; with --task, the options of that task",
    "version": "show the versions of llm-run and Paddle",
    "show_config": "print every option with its value and where the value comes from, and do nothing",
    "traceback": "show where in the program an error was raised",
}
"""Flags of the command itself: never in a file, and without a value."""
SHORT = {"-h": "--help", "-V": "--version"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """A command line, split up."""

    family: str | None = None
    task: str | None = None
    config: tuple[str, ...] = ()
    """Configuration files in order."""
    format: str = "table"
    switches: frozenset[str] = frozenset()
    values: dict[str, list[list[str]]] = field(default_factory=dict)
    """By option name, for each time that the flag is given, the words after it; none after a bare ``--flag``."""


def parse(words: Sequence[str]) -> Arguments:
    """Split ``--key value``, ``--key=value``, ``--flag``, ``--no_flag`` and ``--list a b``.

    A flag may be given several times: files of ``--config`` add up, of a single value the last one holds.

    Raises:
        RefusedError: a word stands before any flag, or a flag of the command lacks its value.
    """
    values: dict[str, list[list[str]]] = {}
    problems = []
    for word in words:
        if word in SHORT or (word.startswith("--") and len(word) > 2):
            name, equals, value = SHORT.get(word, word)[2:].partition("=")
            name = name.replace("-", "_")
            values.setdefault(name, []).append([value] if equals else [])
        elif values:
            values[name][-1].append(word)
        else:
            problems.append(Problem("command line", f"'{word}'", "belongs to no flag", "See llm-run --help."))
    family, task, form = (_single(values, key, problems) for key in ("family", "task", "format"))
    config = tuple(word for words in values.pop("config", []) for word in words)
    switches = frozenset(name for name in SWITCHES if name in values)
    for name in switches:
        extra = [word for words in values.pop(name) for word in words]
        problems += [Problem(f"--{name}", f"'{word}'", "is not expected: it takes no value") for word in extra]
    if problems:
        raise RefusedError(*problems)
    return Arguments(
        family=family, task=task, config=config, format=form or "table", switches=switches, values=values
    )  # fmt: skip


def _single(values: dict[str, list[list[str]]], name: str, problems: list[Problem]) -> str | None:
    """Take out a flag of the command itself that has one value."""
    if name not in values:
        return None
    words = values.pop(name)[-1]
    if len(words) == 1:
        return words[0]
    problems.append(Problem(f"--{name}", " ".join(words), "takes one value" if words else "lacks its value"))
    return None
