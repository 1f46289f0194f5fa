from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.records import BadRecords
from llm_run.core.engine.prompts import PromptRecord, prompt_ids, read_prompts
from llm_run.core.errors import DataError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(tmp_path: Path, *records: Any, policy: Any = "error") -> tuple[list[PromptRecord], BadRecords]:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records))
    bad = BadRecords(policy)
    return read_prompts(path, bad), bad


@pytest.mark.parametrize(
    ("fields", "messages", "target"),
    [
        ({"src": "a"}, [user("a")], ""),
        ({"src": "a", "tgt": "b"}, [user("a")], "b"),
        ({"src": ["a"], "tgt": ["b"]}, [user("a")], "b"),
        ({"src": ["a", "c"], "tgt": ["b", "d"]}, [user("a"), bot("b"), user("c")], "d"),
        ({"src": [["a", "b"], ["c"]], "tgt": "d"}, [user("a"), bot("b"), user("c")], "d"),
        ({"src": [["a", "b"], ["c", "d"]]}, [user("a"), bot("b"), user("c")], "d"),
        ({"messages": [user("a")]}, [user("a")], ""),
        ({"messages": [user("a"), bot("b")]}, [user("a")], "b"),
        ({"messages": [user("a"), bot("b"), user("c")], "tgt": "d"}, [user("a"), bot("b"), user("c")], "d"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, [user("a")], "b"),
        ({"instruction": "a", "input": "b"}, [user("a\nb")], ""),
        ({"instruction": "a", "output": "c"}, [user("a")], "c"),
    ],
)
def test_each_shape_of_a_record_gives_its_conversation(
    tmp_path: Path, fields: dict[str, Any], messages: list[Any], target: str
) -> None:
    (record,), _ = read(tmp_path, fields)
    assert (list(record.messages), record.target, record.fields) == (messages, target, fields)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "is not a JSON object on one line"),
        ("3", "must be a JSON object, not a int."),
        ({"text": "a"}, "has the keys ['text']; expected"),
        ({"src": 5}, "src: must be text, or a list of rounds that is not empty."),
        ({"src": []}, "src: must be text, or a list of rounds that is not empty."),
        ({"src": "a", "tgt": 5}, "tgt: must be text, not a int."),
        ({"src": ["a", "b"]}, "src has 2 rounds and tgt has 1; they must be as many."),
        ({"src": [["a"], ["b"]]}, "src[0]: must be [user, answer]; only the last round may be [user]."),
        ({"src": [["a", "b"], ["c", "d", "e"]]}, "src[1]: must be [user, answer]; only the last round may be [user]."),
        ({"src": [["a", 3], ["c"]]}, "messages[1]: must be text, not a int."),
        ({"messages": [bot("a")]}, "there is nothing to answer"),
        ({"messages": [{"role": "system", "content": "a"}]}, "there is nothing to answer"),
    ],
)
def test_a_malformed_record_is_reported_with_file_and_line(tmp_path: Path, record: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"src": "fine"}, record)
    assert str(caught.value).startswith(f"{tmp_path / 'data.jsonl'}:2: {said}")


def test_malformed_records_are_left_out_and_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    prompts, bad = read(tmp_path, {"src": "a"}, "{", {"src": 5}, {"src": "b"}, policy="skip")
    assert [record.fields["src"] for record in prompts] == ["a", "b"]
    assert bad.count == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: No such file or directory\."):
        read_prompts(tmp_path / "none.jsonl", BadRecords())


class Framed:
    """A tokenizer of bytes that puts 256 before a prompt and 257 behind it."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def prompt(self, ids: list[int]) -> list[int]:
        return [256, *ids, 257]


def record(*messages: Any) -> PromptRecord:
    return PromptRecord("data.jsonl:3", {}, tuple(messages))


@pytest.mark.parametrize(("longest", "expected"), [(10, b"abcdef"), (8, b"abcdef"), (5, b"def"), (2, b"")])
def test_a_long_text_loses_its_left_end_and_keeps_its_frame(longest: int, expected: bytes) -> None:
    ids = prompt_ids(record(user("abcdef")), Framed(), None, longest=longest)  # type: ignore[arg-type]
    assert ids == [256, *expected, 257]


def test_a_long_conversation_loses_its_left_end(byte_level_tokenizer: Any) -> None:
    template = ChatTemplate(jinja="<|user|>{{ messages[-1].content }}<|bot|>")
    whole = prompt_ids(record(user("The capital of France")), byte_level_tokenizer, template, longest=99)
    cut = prompt_ids(record(user("The capital of France")), byte_level_tokenizer, template, longest=3)
    assert cut == whole[-3:] and len(whole) > 3
    assert whole[0] == byte_level_tokenizer.token_id("<|user|>")


@pytest.mark.parametrize("messages", [[user("a"), bot("b"), user("c")], [{"role": "system", "content": "a"}]])
def test_a_conversation_without_a_template_is_refused(messages: list[Any]) -> None:
    with pytest.raises(DataError) as caught:
        prompt_ids(record(*messages), Framed(), None, longest=9)  # type: ignore[arg-type]
    assert str(caught.value) == "system messages, tools and several rounds need a chat template (--chat_template)."


def test_an_empty_prompt_is_refused(byte_level_tokenizer: Any) -> None:
    with pytest.raises(DataError, match="the prompt is empty, and this model begins a text with no token of its own"):
        prompt_ids(record(user("")), byte_level_tokenizer, None, longest=9)
