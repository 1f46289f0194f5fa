from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.data.preference import read_preference
from llm_run.core.errors import DataError

ASKED = [("user", "hi"), ("assistant", "hello"), ("user", "how are you?")]
SIDES = ([*ASKED, ("assistant", "fine")], [*ASKED, ("assistant", "go away")])


def sides(fields: dict[str, Any]) -> tuple[list[tuple[str, str]], ...]:
    preference = read_preference(fields)
    return tuple(
        [(message["role"], message["content"]) for message in side.messages]
        for side in (preference.chosen, preference.rejected)
    )


def sharegpt(*turns: tuple[str, str]) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names[role], "value": text} for role, text in turns]


def openai(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


FINE, AWAY = ("assistant", "fine"), ("assistant", "go away")


@pytest.mark.parametrize(
    "fields",
    [
        {"conversations": sharegpt(*ASKED), "chosen": sharegpt(FINE)[0], "rejected": sharegpt(AWAY)[0]},
        {"messages": openai(*ASKED), "chosen": openai(FINE)[0], "rejected": openai(AWAY)},
        {"prompt": openai(*ASKED), "chosen": openai(FINE), "rejected": openai(AWAY)},
        {"chosen": openai(*ASKED, FINE), "rejected": openai(*ASKED, AWAY)},
        {"src": ["hi", "how are you?"], "tgt": ["hello"], "response": ["go away", "fine"], "sort": [0, 1]},
        {
            "history": [["hi", "hello"]], "instruction": "how are you?", "input": "", "chosen": "fine",
            "rejected": "go away",
        },
    ],
    ids=["llama-factory", "openai", "trl", "trl-implicit", "paddlenlp", "alpaca"],
)  # fmt: skip
def test_records_of_several_toolchains_say_the_same(fields: dict[str, Any]) -> None:
    assert sides(fields) == SIDES


def test_a_prompt_and_answers_may_be_plain_texts() -> None:
    found = sides({"prompt": "2+2?", "chosen": "4", "rejected": "5"})
    assert found == ([("user", "2+2?"), ("assistant", "4")], [("user", "2+2?"), ("assistant", "5")])


def test_a_single_question_of_paddlenlp_has_no_earlier_answer() -> None:
    found = sides({"src": "2+2?", "tgt": [], "response": ["4", "5"], "sort": [1, 0]})
    assert found == ([("user", "2+2?"), ("assistant", "4")], [("user", "2+2?"), ("assistant", "5")])


PROMPT = {"prompt": "2+2?"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "2+2?", "chosen": "4"}, r"has the keys \['chosen', 'prompt'\]; expected \"chosen\" and"),
        (PROMPT | {"chosen": "4", "rejected": "4"}, "are the same answer"),
        (PROMPT | {"chosen": 4, "rejected": "5"}, "chosen: messages: must be a list"),
        (PROMPT | {"chosen": openai(("user", "4")), "rejected": "5"}, "chosen: is a turn of the user"),
        (PROMPT | {"chosen": openai(FINE, AWAY), "rejected": "5"}, "chosen: has 2 turns; expected one answer"),
        ({"chosen": "4", "rejected": "5"}, "chosen: without a prompt beside it, it must be a whole conversation"),
        ({"chosen": openai(FINE), "rejected": openai(AWAY)}, "answer nothing"),
        (
            {"chosen": openai(("user", "a"), FINE), "rejected": openai(("user", "b"), AWAY)},
            "differ before their last answer",
        ),
        ({"src": "q", "response": ["a", "b"], "sort": [1, 1]}, "sort: must be two different numbers"),
        ({"src": "q", "response": ["a"], "sort": [1]}, "response: must be a list of two answers"),
        ({"src": "q", "tgt": "t", "response": ["a", "b"], "sort": [1, 0]}, "src has 1 rounds and tgt has 1"),
    ],
)
def test_a_malformed_record_is_refused_with_what_is_wrong(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_preference(fields)
