"""The chat formats of ChatGLM2 and ChatGLM3: ids that others publish, and what is learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece

from llm_run.core.data.chat import ChatTemplate, Message, load_chat_template
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

GREETING = "你好👋！我是人工智能助手 ChatGLM{}-6B，很高兴见到你，欢迎问我任何问题。"
SYSTEM: Message = {"role": "system", "content": "Be kind."}
# github.com/li-plus/chatglm.cpp, chatglm_test.cpp, cases ChatGLM2 and ChatGLM3
SECOND_PROMPTS = {
    1: [64790, 64792, 790, 30951, 517, 30910, 30939, 30996, 13, 13, 54761, 31211, 39701, 13, 13, 55437, 31211],
    3: [
        64790, 64792, 790, 30951, 517, 30910, 30939, 30996, 13, 13, 54761, 31211, 39701, 13, 13, 55437, 31211, 39701,
        243, 162, 148, 142, 31404, 33030, 34797, 42481, 22011, 10461, 30944, 30943, 30941, 30978, 30949, 31123, 48895,
        35214, 54622, 31123, 32616, 39905, 31901, 31639, 31155, 13, 13, 30995, 30951, 517, 30910, 30943, 30996, 13, 13,
        54761, 31211, 32820, 54266, 31876, 35153, 13, 13, 55437, 31211,
    ],
}  # fmt: skip
THIRD_PROMPT = [64790, 64792, 64795, 30910, 13, 36474, 54591, 64796]
USER, ASSISTANT, OBSERVATION, END = 64795, 64796, 64797, 2


def messages(generation: int) -> list[Message]:
    return [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": GREETING.format(generation)},
        {"role": "user", "content": "晚上睡不着应该怎么办"},
        {"role": "assistant", "content": "喝热牛奶。"},
    ]


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    family = load_family("chatglm2")
    return family.tokenizer(family.card.sizes["chatglm2-6b"], shared / "tokenizers" / "chatglm2")


@pytest.fixture(scope="module")
def peer(shared: Path) -> sentencepiece.SentencePieceProcessor:
    """What the published tokenizers encode each text with."""
    return sentencepiece.SentencePieceProcessor(str(shared / "tokenizers" / "chatglm2" / "tokenizer.model"))


def template(size: str) -> ChatTemplate:
    family = load_family("chatglm2")
    found = family.chat_template(family.card.sizes[size])
    assert found is not None
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_a_prompt_of_the_second_generation_equals_the_published_one(count: int, tokenizer: Tokenizer) -> None:
    assert render_prompt(template("chatglm2-6b"), tokenizer, messages(2)[:count]) == SECOND_PROMPTS[count]


def test_the_second_generation_learns_the_last_answer_and_its_end(
    tokenizer: Tokenizer, peer: sentencepiece.SentencePieceProcessor
) -> None:
    # ptuning/main.py: the answer is encoded by itself, and </s> follows it.
    ids, supervised = render_training(template("chatglm2-6b"), tokenizer, messages(2))
    answer = [*peer.encode("喝热牛奶。"), END]
    assert ids == [*SECOND_PROMPTS[3], *answer]
    assert supervised == [False] * len(SECOND_PROMPTS[3]) + [True] * len(answer)


def test_a_system_message_stands_before_the_first_round(tokenizer: Tokenizer) -> None:
    ids = render_prompt(template("chatglm2-6b"), tokenizer, [SYSTEM, *messages(2)[:1]])
    assert tokenizer.decode(ids) == "Be kind.\n\n[Round 1]\n\n问：你好\n\n答："


def single(peer: sentencepiece.SentencePieceProcessor, role: int, content: str) -> list[int]:
    """``build_single_message`` of the published tokenizer of ChatGLM3, without a tool's name."""
    return [role, *peer.encode("\n"), *peer.encode(content)]


def test_a_prompt_of_the_third_generation_equals_the_published_one(
    tokenizer: Tokenizer, peer: sentencepiece.SentencePieceProcessor
) -> None:
    chat = template("chatglm3-6b")
    assert render_prompt(chat, tokenizer, messages(3)[:1]) == THIRD_PROMPT
    first, answer, second, _ = (message["content"] for message in messages(3))
    expected = [*THIRD_PROMPT[:2], *single(peer, USER, first), *single(peer, ASSISTANT, answer)]
    expected += [*single(peer, USER, second), ASSISTANT]
    assert render_prompt(chat, tokenizer, messages(3)[:3]) == expected


def test_a_system_message_and_a_tools_result_have_roles_of_their_own(
    tokenizer: Tokenizer, peer: sentencepiece.SentencePieceProcessor
) -> None:
    result: Message = {"role": "tool", "content": " 7\n8"}
    ids = render_prompt(template("chatglm3-6b"), tokenizer, [SYSTEM, *messages(3)[:2], result])
    assert ids[2 : 2 + len(single(peer, 64794, "Be kind."))] == single(peer, 64794, "Be kind.")
    assert ids[-len(single(peer, OBSERVATION, " 7\n8")) - 1 :] == [*single(peer, OBSERVATION, " 7\n8"), ASSISTANT]


def test_the_third_generation_learns_what_ends_an_answer(
    tokenizer: Tokenizer, peer: sentencepiece.SentencePieceProcessor
) -> None:
    # finetune_demo of github.com/THUDM/ChatGLM3: all behind <|assistant|>, up to and with the token that follows.
    ids, supervised = render_training(template("chatglm3-6b"), tokenizer, messages(3))
    learnt = [token for token, is_learnt in zip(ids, supervised, strict=True) if is_learnt]
    answers = [single(peer, ASSISTANT, message["content"])[1:] for message in messages(3)[1::2]]
    assert learnt == [*answers[0], USER, *answers[1], END]


def test_an_answer_that_came_with_the_line_of_its_role_is_not_given_another(tokenizer: Tokenizer) -> None:
    # The model writes the end of the role's line itself, so a generated answer begins with it.
    spoken = messages(3)[:3]
    heard: list[Message] = [spoken[0], {"role": "assistant", "content": f"\n {spoken[1]['content']}"}, spoken[2]]
    chat = template("chatglm3-6b")
    assert render_prompt(chat, tokenizer, heard) == render_prompt(chat, tokenizer, spoken)


def test_a_role_that_the_second_generation_lacks_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"chatglm2 knows the roles system \(first\), user and assistant, not tool"):
        render_prompt(template("chatglm2-6b"), tokenizer, [{"role": "tool", "content": "7"}])


def test_a_template_of_paddlenlp_gets_the_prefix_as_well(tokenizer: Tokenizer, tmp_path: Path) -> None:
    question = "[Round {{index+1}}]\n\n问：{{%s}}\n\n答："
    fields = {"query": question % "query", "conversation": [question % "user", "{{bot}}\n\n"]}
    (tmp_path / "chat_template.json").write_text(json.dumps(fields), encoding="utf-8")
    found = load_chat_template(None, tmp_path, template("chatglm2-6b"))
    assert found is not None
    assert render_prompt(found, tokenizer, messages(2)[:3]) == SECOND_PROMPTS[3]
