"""The chat formats, token by token as the published code builds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_run.core.data.chat import ChatTemplate, Message
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

MESSAGES: list[Message] = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "和中国的呢?"},
    {"role": "assistant", "content": "北京。"},
]
SYSTEM: Message = {"role": "system", "content": "Be kind."}
USER, ASSISTANT, END = 195, 196, 2


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    family = load_family("baichuan")
    return family.tokenizer(family.card.sizes["baichuan2-7b"], shared / "tokenizers" / "baichuan")


def template(size: str) -> ChatTemplate:
    family = load_family("baichuan")
    found = family.chat_template(family.card.sizes[size])
    assert found is not None
    return found


@pytest.mark.parametrize("size", ["baichuan2-7b", "baichuan2-13b", "tiny"])
def test_a_prompt_of_the_second_generation_equals_the_published_one(size: str, tokenizer: Tokenizer) -> None:
    # generation_utils.py, build_chat_input: each content by itself, and no end token between turns.
    asked, answered, again, _ = (tokenizer.encode(message["content"]) for message in MESSAGES)
    expected = [USER, *asked, ASSISTANT, *answered, USER, *again, ASSISTANT]
    assert render_prompt(template(size), tokenizer, MESSAGES[:3]) == expected
    system = tokenizer.encode("Be kind.")
    assert render_prompt(template(size), tokenizer, [SYSTEM, *MESSAGES[:3]]) == [*system, *expected]


def test_the_second_generation_learns_what_ends_an_answer(tokenizer: Tokenizer) -> None:
    ids, supervised = render_training(template("baichuan2-7b"), tokenizer, MESSAGES)
    learnt = [token for token, is_learnt in zip(ids, supervised, strict=True) if is_learnt]
    assert learnt == [*tokenizer.encode("Paris."), USER, *tokenizer.encode("北京。"), END]
    assert ids == [*render_prompt(template("baichuan2-7b"), tokenizer, MESSAGES[:3]), *tokenizer.encode("北京。"), END]


def test_the_first_13b_ends_each_answer(tokenizer: Tokenizer) -> None:
    # modeling_baichuan.py, _build_chat_input. In its own vocabulary these two tokens are 195 and 196.
    opening, answer = tokenizer.token_id("<reserved_102>"), tokenizer.token_id("<reserved_103>")
    asked, answered, again, last = (tokenizer.encode(message["content"]) for message in MESSAGES)
    prompt = [opening, *asked, answer, *answered, END, opening, *again, answer]
    assert render_prompt(template("baichuan-13b"), tokenizer, MESSAGES[:3]) == prompt
    ids, supervised = render_training(template("baichuan-13b"), tokenizer, MESSAGES)
    assert ids == [*prompt, *last, END]
    learnt = [token for token, is_learnt in zip(ids, supervised, strict=True) if is_learnt]
    assert learnt == [*answered, END, *last, END]


def test_a_role_that_a_format_lacks_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="the first baichuan knows the roles user and assistant, not system"):
        render_prompt(template("baichuan-13b"), tokenizer, [SYSTEM, *MESSAGES[:1]])
    with pytest.raises(DataError, match=r"baichuan 2 knows the roles system \(first\), user and assistant, not tool"):
        render_prompt(template("baichuan2-7b"), tokenizer, [{"role": "tool", "content": "7"}])


def test_the_first_7b_has_no_chat_format() -> None:
    family = load_family("baichuan")
    assert family.chat_template(family.card.sizes["baichuan-7b"]) is None
