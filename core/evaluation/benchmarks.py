"""Benchmarks by name: how their files are read and how the model answers them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Problem, RefusedError
from .multiple_choice import MultipleChoice, put
from .questions import read_questions, read_word_problems
from .shots import CHINESE, ENGLISH, Asker
from .text_scores import is_chinese
from .word_problems import WordProblems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data.records import BadRecords
    from ..engine.setup import TextFormat
    from ..run import Run


def open_benchmark(run: Run, text: TextFormat, bad: BadRecords, *, most: int | None) -> Any:
    """Read the questions of ``--data_file`` and encode them.

    Args:
        run: names the benchmark, its file and the number of examples.
        text: tokenizer, chat template and what ends an answer.
        bad: what becomes of malformed records.
        most: questions, examples not counted; ``None`` for all.

    Raises:
        DataError: the file cannot be read or a record is malformed.
        RefusedError: the examples leave no question.
    """
    name, path = run.config.evaluation.benchmark, run.config.decoding.data_file
    assert name is not None and path is not None, "check_evaluation asks for them"
    shots = run.config.evaluation.num_fewshot
    if name == "gsm8k":
        problems = read_word_problems(Path(path), bad)
        left = _left(problems, shots, most)
        examples = [(problem.text, problem.solution) for problem in problems[:shots]]
        asker = _asker(run, text, [problem.text for problem in left], examples, room=text.settings.max_new_tokens)
        return WordProblems(name, left, asker, text.settings)
    by_letter = name == "multiple_choice_letter"
    questions = read_questions(Path(path), bad)
    chosen = _left(questions, shots, most)
    shown = [(put(question, by_letter=by_letter), question.answer) for question in questions[:shots]]
    worked = [(asked, continuations[answer]) for (asked, continuations), answer in shown]
    asker = _asker(run, text, [question.text for question in chosen], worked)
    return MultipleChoice(name, chosen, asker, by_letter=by_letter)


def _left(questions: Sequence[Any], shots: int, most: int | None) -> Sequence[Any]:
    left = questions[shots:]
    if not left:
        reason = f"leaves no question of the {len(questions)} in data_file"
        raise RefusedError(Problem("--num_fewshot", str(shots), reason, "Give fewer."))
    return left[:most]


def _asker(
    run: Run, text: TextFormat, questions: Sequence[str], examples: Sequence[tuple[str, str]], *, room: int = 0
) -> Asker:
    """Return who puts the questions, in their language; ``room``: tokens that an answer needs besides the prompt."""
    positions = run.model_config.max_positions
    return Asker(
        tokenizer=text.tokenizer,
        template=text.template,
        wording=CHINESE if is_chinese(questions) else ENGLISH,
        examples=examples,
        longest=min(run.config.data.max_length, max(1, positions - room) if room else positions),
    )
