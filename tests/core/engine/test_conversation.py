from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.engine.conversation import Conversation, MessageTooLongError

TEMPLATE = ChatTemplate(
    jinja="{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}<|bot|>"
)


def conversation(tokenizer: Any, *, system: str | None = None, longest: int = 100) -> Conversation:
    return Conversation(TEMPLATE, tokenizer, system=system, longest=longest)


def shown(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special=False)
    return text


def test_a_prompt_holds_the_system_message_and_all_turns(byte_level_tokenizer: Any) -> None:
    talk = conversation(byte_level_tokenizer, system="S")
    talk.ask("a")
    talk.answer("b")
    assert shown(byte_level_tokenizer, talk.ask("c")) == "<|system|>S<|user|>a<|assistant|>b<|user|>c<|bot|>"


def test_the_oldest_turns_leave_and_the_system_message_stays(byte_level_tokenizer: Any) -> None:
    room = len(byte_level_tokenizer.encode("<|system|>S<|user|>c<|assistant|>d<|user|>e<|bot|>", allow_special=True))
    talk = conversation(byte_level_tokenizer, system="S", longest=room)
    for question, answer in (("a", "b"), ("c", "d")):
        talk.ask(question)
        talk.answer(answer)
    expected = "<|system|>S<|user|>c<|assistant|>d<|user|>e<|bot|>"
    assert shown(byte_level_tokenizer, talk.ask("e")) == expected
    assert talk.num_dropped == 1


def test_a_message_that_fits_no_window_is_refused_and_forgotten(byte_level_tokenizer: Any) -> None:
    talk = conversation(byte_level_tokenizer, longest=5)
    with pytest.raises(MessageTooLongError) as caught:
        talk.ask("zqzqzqzqzq")
    assert str(caught.value).startswith("the message makes a prompt of ")
    assert str(caught.value).endswith("and 5 fit. Shorten it, or raise --src_length if the model has more positions.")
    assert shown(byte_level_tokenizer, talk.ask("a")) == "<|user|>a<|bot|>"


def test_a_turn_can_be_taken_back(byte_level_tokenizer: Any) -> None:
    talk = conversation(byte_level_tokenizer)
    assert talk.take_back() is None
    talk.ask("a")
    talk.answer("b")
    assert talk.take_back() == "a"
    assert shown(byte_level_tokenizer, talk.ask("c")) == "<|user|>c<|bot|>"


def test_clearing_keeps_the_system_message(byte_level_tokenizer: Any) -> None:
    talk = conversation(byte_level_tokenizer, system="S")
    talk.ask("a")
    talk.answer("b")
    talk.clear()
    assert shown(byte_level_tokenizer, talk.ask("c")) == "<|system|>S<|user|>c<|bot|>"
