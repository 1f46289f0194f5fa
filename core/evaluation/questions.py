"""Questions of published benchmarks, by the keys that their files have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.records import BadRecords, read_records
from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

QUESTION_KEYS = ("question", "ctx", "query", "goal")
OPTION_KEYS = ("options", "choices", "endings")
LABEL_KEYS = ("label", "answerKey", "answer", "gold")
LETTER = re.compile(r"^\s*[(（]?([A-Z])[)）.、:：]\s*")
"""What stands before an option in some files: ``(A)``, ``A.``."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with options of which one is right."""

    place: str
    """``file:line``, for messages."""
    text: str
    options: tuple[str, ...]
    answer: int
    """Number of the right option, from 0."""


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A question whose answer ends in a number."""

    place: str
    text: str
    solution: str
    """Worked out, with ``#### number`` at its end."""


def read_questions(path: Path, bad: BadRecords) -> list[Question]:
    """Read multiple-choice records.

    Known are the keys of AGIEval (``question``, ``options``, ``label``), MMLU (``question``, ``choices``, ``answer``),
    ARC (``choices`` with ``text`` and ``label``, ``answerKey``) and HellaSwag (``ctx``, ``endings``, ``label``).

    Raises:
        DataError: the file cannot be read or holds no question; or a record is malformed and ``bad`` says to stop.
    """
    return _read(path, bad, _question)


def read_word_problems(path: Path, bad: BadRecords) -> list[WordProblem]:
    """Read GSM8K's records: ``question``, and ``answer`` that ends in ``#### number``.

    Raises:
        DataError: as ``read_questions``.
    """
    return _read(path, bad, _word_problem)


def _read(path: Path, bad: BadRecords, read: Any) -> list[Any]:
    found = []
    for record in read_records(path, bad):
        try:
            found.append(read(record.fields, record.place))
        except DataError as error:
            bad.handle(DataError(f"{record.place}: {error}"))
    if not found:
        raise DataError(f"{path}: holds no question.")
    return found


def _question(fields: Mapping[str, Any], place: str) -> Question:
    text, options, label = _one_of(fields, QUESTION_KEYS), _one_of(fields, OPTION_KEYS), _one_of(fields, LABEL_KEYS)
    names: list[str] | None = None
    if isinstance(options, dict):
        named: Mapping[str, Any] = options
        options, names = named.get("text"), named.get("label")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"no question: expected text under one of {', '.join(QUESTION_KEYS)}.")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(one, str) for one in options):
        raise DataError(f"no options: expected a list of two texts or more under one of {', '.join(OPTION_KEYS)}.")
    passage = fields.get("passage")
    whole = f"{passage}\n{text}" if isinstance(passage, str) and passage.strip() else text
    answer = _answer(label, names, len(options))
    return Question(place, whole.strip(), tuple(LETTER.sub("", one).strip() for one in options), answer)


def _answer(label: Any, names: Any, count: int) -> int:
    """Return the number that a label stands for: a number from 0, a letter from A, or one of the options' names."""
    if isinstance(names, list) and label in names:
        return names.index(label)
    number = label
    if isinstance(label, str) and len(label.strip()) == 1 and label.strip().isalpha():
        number = ord(label.strip().upper()) - ord("A")
    elif isinstance(label, str) and label.strip().isdigit():
        number = int(label)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise DataError(f"the label {label!r} names none of the {count} options (a letter, or a number from 0).")
    return number


def _word_problem(fields: Mapping[str, Any], place: str) -> WordProblem:
    text, solution = fields.get("question"), fields.get("answer")
    if not isinstance(text, str) or not isinstance(solution, str) or "####" not in solution:
        raise DataError("expected a question, and an answer that ends in '#### number'.")
    return WordProblem(place, text.strip(), solution.strip())


def _one_of(fields: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """Return the value of the first key that is there."""
    return next((fields[key] for key in keys if fields.get(key) is not None), None)
