"""OPT's tokenizer against that of transformers, and a chat format of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.chat import load_chat_template
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.registry.manager import load_family

CHAT = (
    "{%- for message in messages -%}{{- message.role + ':\\n' + message.content -}}"
    "{{- eos_token if message.role == 'assistant' else '\\n' -}}{%- endfor -%}"
    "{{- 'assistant:\\n' if add_generation_prompt else '' -}}"
)


# huggingface.co/facebook/opt-125m, tokenizer_config.json
PUBLISHED = {
    "errors": "replace", "unk_token": "</s>", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>",
    "add_prefix_space": False, "add_bos_token": True,
}  # fmt: skip
TEXTS = (
    "It was the best of times, it was the worst of times.",
    "学而时习之，不亦说乎？",
    "mixed 中文 and English, 1234567890, naïve café",
    "def f(x):\n    return {'a': x ** 2}\n\n\n# end\n",
    "👩‍🚀🚀 emoji ✨ and ␀ odd \u200b spaces",
)


@pytest.fixture
def directory(shared: Path, tmp_path: Path) -> Path:
    (tmp_path / "vocab.json").symlink_to(shared / "tokenizers" / "opt" / "vocab.json")
    (tmp_path / "merges.txt").symlink_to(shared / "tokenizers" / "gpt" / "merges.txt")
    return tmp_path


@pytest.fixture
def tokenizer(directory: Path) -> Tokenizer:
    family = load_family("opt")
    return family.tokenizer(family.card.sizes["opt-125m"], directory)


def test_ids_of_a_prompt_equal_those_of_transformers(tokenizer: Tokenizer, directory: Path) -> None:
    from transformers import GPT2Tokenizer

    peer = GPT2Tokenizer(str(directory / "vocab.json"), str(directory / "merges.txt"), **PUBLISHED)
    for text in TEXTS:
        assert tokenizer.encode(text) == peer(text, add_special_tokens=False)["input_ids"], text


def test_a_prompt_begins_with_the_token_that_ends_a_text(tokenizer: Tokenizer) -> None:
    # The model card of facebook/opt-350m: a prompt is preceded by </s>.
    assert tokenizer.prompt(tokenizer.encode("Hello")) == [2, 31414]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (2, 2, 1, (2,))
    assert [tokenizer.token_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]


def test_the_published_settings_change_nothing(tokenizer: Tokenizer, directory: Path) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps(PUBLISHED))
    family = load_family("opt")
    again = family.tokenizer(family.card.sizes["opt-125m"], directory)
    assert again.prompt([7]) == tokenizer.prompt([7]) == [2, 7]
    assert (again.bos_id, again.eos_id, again.pad_id) == (2, 2, 1)


def test_a_small_model_may_have_a_vocabulary_without_the_published_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Peer
    from tokenizers import models

    Peer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    family = load_family("opt")
    assert family.tokenizer(family.card.sizes["tiny"], tmp_path).eos_id is None


def test_a_given_chat_format_is_learnt_as_it_is_served(tokenizer: Tokenizer, tmp_path: Path) -> None:
    family = load_family("opt")
    assert family.chat_template(family.card.sizes["opt-125m"]) is None
    (tmp_path / "chat.jinja").write_text(CHAT)
    template = load_chat_template(str(tmp_path / "chat.jinja"), None, None)
    assert template is not None
    messages: list[Any] = [
        {"role": "user", "content": "Hello </s>"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "See you"},
    ]
    prompt = render_prompt(template, tokenizer, messages[:-1])
    ids, supervised = render_training(template, tokenizer, messages)
    assert ids[: len(prompt)] == prompt
    learnt = [token for token, is_learnt in zip(ids, supervised, strict=True) if is_learnt]
    assert tokenizer.decode(learnt, skip_special=False) == "Hi</s>See you</s>"
    assert prompt.count(2) == 1
