"""Numbers of worked-out answers."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.records import BadRecords
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.evaluation import word_problems
from llm_run.core.evaluation.questions import WordProblem, read_word_problems
from llm_run.core.evaluation.shots import ENGLISH, Asker
from llm_run.core.evaluation.word_problems import WordProblems, last_number, marked_number


@pytest.mark.parametrize(
    ("text", "marked", "last"),
    [
        ("so 16 - 7 = 9\n#### 9", 9, 9),
        ("#### 1,234.50.", Decimal("1234.5"), Decimal("1234.5")),
        ("#### -$3\nor 4?", -3, 4),
        ("He pays $70,000.", None, 70000),
        ("It is 3.0 apples", None, 3),
        ("no idea", None, None),
        ("#### , then nothing", None, None),
    ],
)
def test_numbers_are_found_as_people_write_them(text: str, marked: Any, last: Any) -> None:
    assert (marked_number(text), last_number(text)) == (marked, last)


def test_each_published_solution_ends_in_its_own_number(shared: Path) -> None:
    for problem in read_word_problems(shared / "eval/gsm8k_test.jsonl", BadRecords()):
        assert marked_number(problem.solution) == last_number(problem.solution) is not None


def test_right_answers_are_counted_strictly_and_leniently(peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["1 + 1 = 2\n#### 2", "it makes 2", "#### 3", "two"]
    problems = [WordProblem(f"p:{place}", "What is 1 + 1?", "1 + 1 = 2\n#### 2") for place in range(4)]
    measure = WordProblems("gsm8k", problems, Asker(peers.tokenizer, None, ENGLISH, (), 200), SamplingSettings())

    class Answer:
        finish_reason = "stop"

        def __init__(self, text: str) -> None:
            self.text = text

    monkeypatch.setattr(word_problems, "answer_all", lambda *_, **__: [Answer(text) for text in answers])
    figures = measure.run(peers.model, batch_size=2, advance=lambda _: None)
    assert (figures["exact_match"], figures["flexible_match"], figures["questions"]) == (0.25, 0.5, 4)
    assert [line["is_right"] for line in measure.lines] == [True, False, False, False]


def test_answers_do_not_depend_on_the_batch_and_end_before_the_next_question(peers: Any) -> None:
    problems = [
        WordProblem(f"p:{place}", f"What do {place} and {'many ' * place}make?", "#### 1") for place in range(5)
    ]
    asker = Asker(peers.tokenizer, None, ENGLISH, [("What do 1 and 1 make?", "2\n#### 2")], 200)
    found = []
    for batch_size in (1, 5):
        measure = WordProblems("gsm8k", problems, asker, SamplingSettings(max_new_tokens=12))
        measure.run(peers.model, batch_size=batch_size, advance=lambda _: None)
        found.append([line["output"] for line in measure.lines])
    assert found[0] == found[1]
    assert "Question:" in measure._settings.stop
