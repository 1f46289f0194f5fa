"""Tables for a terminal and for Markdown, aligned by the width that characters have on screen."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Sequence


def width(text: str) -> int:
    """Return the columns that ``text`` takes: signs such as the tick of the matrix, and Chinese, take two each."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def pad(text: str, columns: int) -> str:
    """Fill ``text`` with spaces up to ``columns``."""
    return text + " " * (columns - width(text))


def terminal_width() -> int:
    """Return the columns to use: those of the terminal, at most 100; 100 where there is none."""
    return min(shutil.get_terminal_size((100, 24)).columns, 100)


def aligned(rows: Sequence[Sequence[str]], *, gap: int = 2) -> list[str]:
    """Return one line for each row, with the cells of a column under each other."""
    columns = [max(width(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [(" " * gap).join(pad(cell, columns[i]) for i, cell in enumerate(row)).rstrip() for row in rows]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table whose first row is the heading."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def wrapped(text: str, *, first: str = "", then: str | None = None) -> list[str]:
    """Break ``text`` into lines, the first behind ``first``, the others behind ``then`` (default: as many spaces)."""
    indent = " " * width(first) if then is None else then
    return textwrap.wrap(
        text,
        terminal_width(),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
