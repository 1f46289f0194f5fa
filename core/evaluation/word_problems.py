"""Arithmetic in words: the model works a problem out, and its last number is compared with the reference."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from .answers import answer_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..causal_lm import CausalLM
    from ..engine.settings import SamplingSettings
    from .questions import WordProblem
    from .shots import Asker

MARKED = re.compile(r"####\s*(-?[$]?[0-9.,]+)")
"""The form that the references have, and that examples or the instruction ask for."""
NUMBER = re.compile(r"-?[$]?[0-9][0-9.,]*")
INSTRUCTION = "\nWork it out step by step, and end with '#### ' and the answer as a number."
"""Added to a question without examples, which would show the form."""


class WordProblems:
    """Exact match of numbers: ``exact_match`` takes the one after ``####``, ``flexible_match`` the last one of all.

    Source: Cobbe et al. 2021, arXiv:2110.14168; the two readings are those of lm-evaluation-harness's ``gsm8k``.
    """

    def __init__(self, name: str, problems: Sequence[WordProblem], asker: Asker, settings: SamplingSettings) -> None:
        """Encode all problems.

        Args:
            name: of the benchmark.
            problems: to be solved.
            asker: puts them.
            settings: what ends an answer.
        """
        self.name = name
        self._problems, self._asker = problems, asker
        instruction = "" if asker.examples else INSTRUCTION
        self.prompts = [asker.prompt(problem.text + instruction) for problem in problems]
        # In plain text nothing but the next question says that an answer has ended.
        stop = settings.stop if asker.template else (*settings.stop, asker.wording.question.strip())
        self._settings = replace(settings, stop=stop)
        self.lines: list[dict[str, Any]] = []

    @property
    def num_items(self) -> int:
        """Problems."""
        return len(self.prompts)

    def run(self, model: CausalLM, *, batch_size: int, advance: Callable[[float], None]) -> dict[str, float]:
        """Return the shares that are right; ``lines`` then holds the answers."""
        tokenizer = self._asker.tokenizer
        found = answer_all(model, self.prompts, self._settings, tokenizer, batch_size=batch_size, advance=advance)
        self.lines, exact, flexible = [], 0, 0
        for problem, answer in zip(self._problems, found, strict=True):
            expected = marked_number(problem.solution)
            is_exact = expected is not None and marked_number(answer.text) == expected
            exact += is_exact
            flexible += expected is not None and last_number(answer.text) == expected
            self.lines.append({
                "question": problem.text, "answer": problem.solution, "output": answer.text,
                "finish_reason": answer.finish_reason, "is_right": is_exact,
            })  # fmt: skip
        count = len(self._problems)
        share = exact / count
        error = math.sqrt(share * (1 - share) / max(1, count - 1))
        unfinished = sum(answer.finish_reason == "length" for answer in found)
        return {
            "exact_match": share, "flexible_match": flexible / count, "exact_match_stderr": error,
            "questions": count, "unfinished": unfinished,
        }  # fmt: skip


def marked_number(text: str) -> Decimal | None:
    """Return the number after the first ``####``."""
    match = MARKED.search(text)
    return None if match is None else _number(match.group(1))


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text."""
    found = NUMBER.findall(text)
    return _number(found[-1]) if found else None


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", "").replace("$", "").rstrip("."))
    except InvalidOperation:
        return None
