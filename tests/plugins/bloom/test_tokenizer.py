"""BLOOM's two ways to cut text, each against the program that cuts so, and a chat format of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
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


TEXTS = (
    "It was the best of times, it was the worst of times.",
    "学而时习之，不亦说乎？",
    "mixed 中文 and English, 1234567890, naïve café",
    "def f(x):\n    return {'a': x ** 2}\n\n\n# end\n",
    "👩‍🚀🚀 emoji ✨ and ␀ odd \u200b spaces",
    "I'll say: don't (we've) ...   three  spaces\t\tand tabs   ",
)
"""Those of tests/golden/make_bloom.py."""


@pytest.fixture
def published(shared: Path) -> Path:
    return shared / "tokenizers" / "bloom" / "tokenizer.bloom_style_12k.json"


def load(directory: Path) -> Tokenizer:
    family = load_family("bloom")
    return family.tokenizer(family.card.sizes["bloom-560m"], directory)


@pytest.fixture
def tokenizer(published: Path, tmp_path: Path) -> Tokenizer:
    """As BigScience publishes it."""
    (tmp_path / "tokenizer.json").symlink_to(published)
    return load(tmp_path)


@pytest.fixture
def as_paddlenlp(published: Path, tmp_path: Path) -> Tokenizer:
    """The same vocabulary in the files of PaddleNLP."""
    model = json.loads(published.read_text())["model"]
    directory = tmp_path / "paddlenlp"
    directory.mkdir()
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    return load(directory)


def test_tokenizer_json_cuts_as_transformers_does(tokenizer: Tokenizer, published: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    peer = PreTrainedTokenizerFast(tokenizer_file=str(published))
    for text in TEXTS:
        assert tokenizer.encode(text) == peer(text, add_special_tokens=False)["input_ids"], text


def test_vocabulary_and_merges_cut_as_paddlenlp_does(as_paddlenlp: Tokenizer, project: Path) -> None:
    with np.load(project / "tests" / "golden" / "bloom.npz") as golden:
        expected = json.loads(str(golden["tokens"]))
    assert [as_paddlenlp.encode(text) for text in TEXTS] == expected


def test_the_two_ways_differ(tokenizer: Tokenizer, as_paddlenlp: Tokenizer) -> None:
    text = TEXTS[-1]
    assert tokenizer.encode(text) != as_paddlenlp.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == as_paddlenlp.decode(as_paddlenlp.encode(text)) == text


def test_special_tokens_have_the_published_ids_in_both(tokenizer: Tokenizer, as_paddlenlp: Tokenizer) -> None:
    for loaded in (tokenizer, as_paddlenlp):
        assert [loaded.token_id(token) for token in ("<unk>", "<s>", "</s>", "<pad>")] == [0, 1, 2, 3]
        assert (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.stop_ids) == (1, 2, 3, (2,))
        assert loaded.prompt([7]) == [7]
        assert loaded.vocab_size == 12000


def test_a_small_model_takes_the_published_tokens_where_its_vocabulary_has_them(
    published: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer as Peer
    from tokenizers import models

    family, size = load_family("bloom"), "tiny"
    (tmp_path / "tokenizer.json").symlink_to(published)
    assert family.tokenizer(family.card.sizes[size], tmp_path).eos_id == 2
    (tmp_path / "own").mkdir()
    Peer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "own" / "tokenizer.json"))
    assert family.tokenizer(family.card.sizes[size], tmp_path / "own").eos_id is None


def test_a_given_chat_format_is_learnt_as_it_is_served(tokenizer: Tokenizer, tmp_path: Path) -> None:
    family = load_family("bloom")
    assert family.chat_template(family.card.sizes["bloom-560m"]) is None
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
