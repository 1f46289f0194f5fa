"""The chat format: rounds counted from 0, all but the last answer as context, and only that one learnt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_run.core.data.chat import ChatTemplate, Message, load_chat_template
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

MESSAGES: list[Message] = [
    {"role": "user", "content": "法国的首都是哪里"},
    {"role": "assistant", "content": "巴黎"},
    {"role": "user", "content": "中国呢"},
    {"role": "assistant", "content": "北京"},
]
PROMPT = "[Round 0]\n问:法国的首都是哪里\n答:巴黎\n[Round 1]\n问:中国呢\n答:"
"""As the vocabulary gives it back: it writes full-width punctuation in ASCII."""


@pytest.fixture(scope="module")
def tokenizer(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("chatglm")
    shutil.copy(shared / "tokenizers" / "chatglm" / "ice_text.approx.model", folder / "ice_text.model")
    family = load_family("chatglm")
    return family.tokenizer(family.card.sizes["chatglm-6b"], folder)


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    family = load_family("chatglm")
    found = family.chat_template(family.card.sizes["chatglm-6b"])
    assert found is not None
    return found


def test_a_prompt_is_the_rounds_and_the_blank(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    ids = render_prompt(template, tokenizer, MESSAGES[:3])
    assert ids[-2:] == [130001, 130004]
    assert tokenizer.decode(ids) == PROMPT


def test_only_the_last_answer_and_its_end_are_learnt(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    ids, supervised = render_training(template, tokenizer, MESSAGES)
    prompt = render_prompt(template, tokenizer, MESSAGES[:3])
    assert ids == [*prompt, *tokenizer.encode("北京"), 130005]
    assert supervised == [False] * len(prompt) + [True] * (len(ids) - len(prompt))


def test_a_system_message_stands_before_the_first_round(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    messages: list[Message] = [{"role": "system", "content": "Be brief."}, *MESSAGES[:1]]
    text = tokenizer.decode(render_prompt(template, tokenizer, messages))
    assert text == "Be brief.\n[Round 0]\n问:法国的首都是哪里\n答:"


def test_a_role_that_the_format_lacks_is_refused(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="chatglm knows the roles system, user and assistant, not tool"):
        render_prompt(template, tokenizer, [{"role": "tool", "content": "x"}])


@pytest.fixture
def seed(template: ChatTemplate, tmp_path: Path) -> ChatTemplate:
    """PaddleNLP's file for chatglm-6b-v1.1, which leaves [gMASK], <sop> and <eop> to the tokenizer."""
    question = "[Round {{index}}]\n问：{{%s}}\n答："
    fields = {"query": question % "query", "conversation": [question % "user", "{{bot}}\n"]}
    (tmp_path / "chat_template.json").write_text(json.dumps(fields), encoding="utf-8")
    found = load_chat_template(None, tmp_path, template)
    assert found is not None
    return found


def test_a_template_of_paddlenlp_gets_the_blank_as_well(
    template: ChatTemplate, seed: ChatTemplate, tokenizer: Tokenizer
) -> None:
    assert render_prompt(seed, tokenizer, MESSAGES[:3]) == render_prompt(template, tokenizer, MESSAGES[:3])
    ids, supervised = render_training(seed, tokenizer, MESSAGES)
    assert ids == [*render_prompt(seed, tokenizer, MESSAGES[:3]), *tokenizer.encode("北京\n"), 130005]
    assert sum(supervised) == len(tokenizer.encode("北京\n")) + 1


@pytest.mark.parametrize("source", ["template", "seed"])
def test_a_saved_template_renders_the_same_when_it_is_found_again(
    source: str, template: ChatTemplate, tokenizer: Tokenizer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    original: ChatTemplate = request.getfixturevalue(source)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "chat_template.jinja").write_text(original.jinja, encoding="utf-8")
    found = load_chat_template(None, tmp_path / "saved", template)
    assert found is not None
    assert render_training(found, tokenizer, MESSAGES) == render_training(original, tokenizer, MESSAGES)
    assert render_prompt(found, tokenizer, MESSAGES[:3]) == render_prompt(original, tokenizer, MESSAGES[:3])
