"""``llm-run configs``: list, print or copy the ready-made configurations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..configs.ready_made import all_names, ready_made
from ..errors import Problem, RefusedError
from .table import wrapped

USAGE = "llm-run configs ls, llm-run configs cat NAME, or llm-run configs cp NAME [FILE]"


def run_configs(words: Sequence[str]) -> int:
    """Do what the words after ``llm-run configs`` ask for.

    Raises:
        RefusedError: the words are none of the three forms, there is no such configuration, or the file exists.
    """
    match list(words):
        case [] | ["ls"]:
            _list()
        case ["cat", name]:
            print(ready_made(name), end="")
        case ["cp", name]:
            _copy(name, Path(f"{name.replace('/', '-')}.yaml"))
        case ["cp", name, file]:
            _copy(name, Path(file))
        case _:
            raise RefusedError(Problem("configs", f"'{' '.join(words)}'", "is not understood", f"Use {USAGE}."))
    return 0


def _list() -> None:
    """Print the names, a family a paragraph."""
    by_family: dict[str, list[str]] = {}
    for name in all_names():
        by_family.setdefault(name.partition("/")[0], []).append(name)
    for found in by_family.values():
        print("\n".join(wrapped("  ".join(found))))


def _copy(name: str, file: Path) -> None:
    text = ready_made(name)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise RefusedError(Problem("configs cp", str(file), "exists already", "Name another file.")) from None
    print(f"{file}: change the paths in it, then llm-run --config {file}")
