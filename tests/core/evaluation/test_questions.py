"""The records of published benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.records import BadRecords
from llm_run.core.errors import DataError
from llm_run.core.evaluation.questions import read_questions, read_word_problems


def written(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    "record",
    [
        {"passage": None, "question": "Q?", "options": ["(A)one", "(B)two", "(C)three"], "label": "B"},
        {"question": "Q?", "choices": ["one", "two", "three"], "answer": 1},
        {"question": "Q?", "choices": ["one", "two", "three"], "answer": "B"},
        {"question": "Q?", "choices": {"text": ["one", "two", "three"], "label": ["1", "2", "3"]}, "answerKey": "2"},
        {"ctx": "Q?", "endings": ["one", "two", "three"], "label": "1"},
    ],
    ids=["agieval", "mmlu", "mmlu with letters", "arc", "hellaswag"],
)
def test_questions_of_several_benchmarks_are_read(tmp_path: Path, record: dict[str, Any]) -> None:
    (question,) = read_questions(written(tmp_path / "a.jsonl", record), BadRecords())
    assert (question.text, question.options, question.answer) == ("Q?", ("one", "two", "three"), 1)


def test_a_passage_stands_before_its_question(tmp_path: Path) -> None:
    record = {"passage": "It rains.", "question": "Is it wet?", "options": ["yes", "no"], "label": 0}
    (question,) = read_questions(written(tmp_path / "a.jsonl", record), BadRecords())
    assert question.text == "It rains.\nIs it wet?"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"label": "E"}, r"a\.jsonl:1: the label 'E' names none of the 2 options"),
        ({"label": 2}, "names none of the 2 options"),
        ({"options": ["one"]}, "no options: expected a list of two texts or more"),
        ({"question": ""}, "no question: expected text under one of question"),
    ],
)
def test_a_malformed_question_is_named_by_its_line(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    record = {"question": "Q?", "options": ["one", "two"], "label": 0, **changed}
    with pytest.raises(DataError, match=said):
        read_questions(written(tmp_path / "a.jsonl", record), BadRecords())
    bad = BadRecords("skip")
    good = {"question": "Q?", "options": ["one", "two"], "label": 0}
    assert len(read_questions(written(tmp_path / "b.jsonl", record, good), bad)) == 1 == bad.count


def test_all_published_questions_are_read(shared: Path) -> None:
    geography = read_questions(shared / "eval/agieval_gaokao-geography.jsonl", BadRecords())
    assert len(geography) == 199
    assert geography[0].options == ("①②", "①④", "②③", "③④") and geography[0].answer == 0
    assert len(read_word_problems(shared / "eval/gsm8k_test.jsonl", BadRecords())) == 1319


def test_a_problem_without_its_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: expected a question, and an answer that ends in '#### number'"):
        read_word_problems(written(tmp_path / "a.jsonl", {"question": "Q?", "answer": "7"}), BadRecords())
