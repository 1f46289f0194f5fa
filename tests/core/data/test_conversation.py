"""The record shapes of several toolchains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.conversation import read_conversation
from llm_run.core.errors import DataError


def said(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """The turns of a record as (role, content)."""
    return [(message["role"], message["content"]) for message in read_conversation(fields).messages]


QA = [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"src": "q", "tgt": "a"}, QA),
        ({"src": ["q", "q"], "tgt": ["a", "a"]}, QA * 2),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, QA),
        ({"messages": [{"role": "developer", "content": "s"},
                       {"role": "user", "content": [{"type": "text", "text": "q"}]}]},
         [("system", "s"), ("user", "q")]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, QA),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "{}"},
                            {"from": "observation", "value": "4"}, {"from": "gpt", "value": "a"}], "system": "s"},
         [("system", "s"), ("user", "q"), ("assistant", "{}"), ("tool", "4"), ("assistant", "a")]),
        ({"instruction": "q", "output": "a"}, QA),
        ({"instruction": "q", "input": "", "output": "a"}, QA),
        ({"instruction": "q", "input": "x", "output": "a", "system": "s", "history": [["q", "a"]]},
         [("system", "s"), *QA, ("user", "q\nx"), ("assistant", "a")]),
    ],
)  # fmt: skip
def test_each_shape_becomes_turns(fields: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert said(fields) == wanted


def test_tools_come_as_a_list_or_as_its_json() -> None:
    schema = {"name": "f", "parameters": {}}
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    for tools in ([schema], json.dumps([schema]), [{"type": "function", "function": schema}]):
        assert read_conversation({"conversations": turns, "tools": tools}).tools == (
            {"type": "function", "function": schema},
        )
    assert read_conversation({"conversations": turns, "tools": ""}).tools is None


def test_a_call_of_a_tool_needs_no_content() -> None:
    calls = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    (message,) = read_conversation({"messages": [{"role": "assistant", "content": None, "tool_calls": calls}]}).messages
    assert dict(message) == {"role": "assistant", "content": "", "tool_calls": calls}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"text": "x"}, r"has the keys \['text'\]; expected \{\"src\", \"tgt\"\}, \{\"messages\""),
        ({"src": "q"}, r"'tgt' is missing; expected"),
        ({"src": ["q"], "tgt": ["a", "b"]}, r"src has 1 rounds and tgt has 2; they must be as many"),
        ({"src": [], "tgt": []}, r"src has 0 rounds"),
        ({"src": 5, "tgt": "a"}, r"src\[0\]: must be text, not a int\."),
        ({"src": "\ud800", "tgt": "a"}, r"src\[0\]: holds half of a surrogate pair at character 0, which is no text\."),
        ({"messages": []}, r"messages: must be a list of turns that is not empty\."),
        ({"messages": ["x"]}, r"messages\[0\]: must be an object, not a str\."),
        (
            {"messages": [{"role": "boss", "content": "x"}]},
            r"messages\[0\]: the role 'boss' is not known\. Known: system, ",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            r"messages\[0\]: content has a part that is not text",
        ),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: must be text, not a NoneType\."),
        ({"instruction": "q"}, r"'output' is missing"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, r"history\[0\]: must be \[question, answer\]\."),
        ({"instruction": "q", "output": "a", "history": 3}, r"history: must be a list of \[question, answer\]\."),
        ({"conversations": [{"from": "human", "value": "q"}], "tools": "{"}, r"tools: is not valid JSON: "),
        ({"conversations": [{"from": "human", "value": "q"}], "tools": [1]}, r"tools: must be a list of objects\."),
    ],
)
def test_what_is_wrong_with_a_record_is_said(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_conversation(fields)


@pytest.mark.parametrize("name", ["chat/glaive_toolcall_en_demo.json", "chat/identity.json", "chat/kdconv_zh.dev.jsonl",
                                  "sft/sft_en.dev.jsonl", "sft/reading_zh.dev.jsonl"])  # fmt: skip
def test_published_data_sets_are_read_whole(shared: Path, name: str) -> None:
    from llm_run.core.data.records import BadRecords, read_records

    records = [read_conversation(record.fields) for record in read_records(shared / name, BadRecords())]
    assert len(records) > 90
    assert all(any(message["role"] == "assistant" for message in record.messages) for record in records)
