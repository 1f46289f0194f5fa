"""GPT-2's tokenizer against published ids, and a chat format of the user's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.chat import load_chat_template
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

END = 50256
CHAT = (
    "{%- for message in messages -%}{{- message.role + ':\\n' + message.content -}}"
    "{{- eos_token if message.role == 'assistant' else '\\n' -}}{%- endfor -%}"
    "{{- 'assistant:\\n' if add_generation_prompt else '' -}}"
)


@pytest.fixture
def tokenizer(shared: Path) -> Tokenizer:
    family = load_family("gpt3")
    return family.tokenizer(family.card.sizes["gpt2"], shared / "tokenizers" / "gpt")


def test_ids_equal_those_that_llama_cpp_publishes(tokenizer: Tokenizer, shared: Path) -> None:
    folder = shared / "tokenizers" / "reference_vectors"
    texts = (folder / "ggml-vocab-gpt-2.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = (folder / "ggml-vocab-gpt-2.gguf.out").read_text().split("\n")
    expected = [[int(number) for number in line.split()] for line in lines[: len(texts)]]
    assert len(texts) > 40
    assert [tokenizer.encode(text) for text in texts] == expected


def test_a_text_ends_with_its_one_special_token(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (END, END, END, (END,))
    assert tokenizer.prompt([15496]) == [15496]
    assert tokenizer.vocab_size == 50257


@pytest.mark.parametrize("size", ["gpt2", "tiny"])
def test_tokenizer_json_is_read_before_other_files(size: str, shared: Path, tmp_path: Path) -> None:
    from tokenizers import AddedToken, models
    from tokenizers import Tokenizer as Peer

    for name in ("vocab.json", "merges.txt"):
        shutil.copy(shared / "tokenizers" / "gpt" / name, tmp_path)
    peer = Peer(models.WordLevel({"<|endoftext|>": 0, "Hello": 1}, unk_token="<|endoftext|>"))
    peer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    peer.save(str(tmp_path / "tokenizer.json"))
    family = load_family("gpt3")
    loaded = family.tokenizer(family.card.sizes[size], tmp_path)
    assert (loaded.encode("Hello"), loaded.eos_id) == ([1], 0)


def test_a_small_model_may_have_a_vocabulary_without_the_published_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Peer
    from tokenizers import models

    Peer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    family = load_family("gpt3")
    assert family.tokenizer(family.card.sizes["tiny"], tmp_path).eos_id is None
    with pytest.raises(DataError, match=r"the special token '<\|endoftext\|>' is not in the vocabulary"):
        family.tokenizer(family.card.sizes["gpt2"], tmp_path)


def test_a_given_chat_format_is_learnt_as_it_is_served(tokenizer: Tokenizer, tmp_path: Path) -> None:
    family = load_family("gpt3")
    assert family.chat_template(family.card.sizes["gpt2"]) is None
    (tmp_path / "chat.jinja").write_text(CHAT)
    template = load_chat_template(str(tmp_path / "chat.jinja"), None, None)
    assert template is not None
    messages: list[Any] = [
        {"role": "user", "content": "Hello <|endoftext|>"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "See you"},
    ]
    prompt = render_prompt(template, tokenizer, messages[:-1])
    ids, supervised = render_training(template, tokenizer, messages)
    assert ids[: len(prompt)] == prompt
    learnt = [token for token, is_learnt in zip(ids, supervised, strict=True) if is_learnt]
    assert tokenizer.decode(learnt, skip_special=False) == "Hi<|endoftext|>See you<|endoftext|>"
    assert prompt.count(END) == 1


def test_the_tokenizer_of_a_chinese_cpm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.model").touch()
    family = load_family("gpt3")
    with pytest.raises(DataError) as refusal:
        family.tokenizer(family.card.sizes["cpm-large"], tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path}: holds the tokenizer of a Chinese CPM, which cuts text into words by jieba first and is not "
        "supported. One of these is read: tokenizer.json, vocab.json with merges.txt."
    )


def test_files_of_another_model_are_refused(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1}))
    shutil.copy(shared / "tokenizers" / "gpt" / "merges.txt", tmp_path)
    family = load_family("gpt3")
    with pytest.raises(DataError, match=r"merges\.txt: does not fit vocab\.json"):
        family.tokenizer(family.card.sizes["gpt2"], tmp_path)
