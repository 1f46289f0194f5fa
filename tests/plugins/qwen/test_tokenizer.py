"""Which file a qwen's tokenizer comes from, ids that are published, and its chat format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_run.core.data.sandbox import render_template
from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

USER = {"role": "user", "content": "Hello"}


def load(directory: Path, size: str) -> Tokenizer:
    family = load_family("qwen")
    return family.tokenizer(family.card.sizes[size], directory)


def test_ids_of_the_first_generation(shared: Path) -> None:
    tokenizer = load(shared / "tokenizers" / "qwen", "qwen-7b")
    assert tokenizer.encode("Hello world") == [9707, 1879]
    assert tokenizer.encode("你好") == [108386]
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>", "<|extra_204|>")
    assert [tokenizer.token_id(token) for token in specials] == [151643, 151644, 151645, 151646, 151850]
    assert set(tokenizer.stop_ids) == {151643, 151645}
    assert tokenizer.prompt([9707]) == [9707]


def test_text_is_brought_into_its_composed_form(shared: Path) -> None:
    tokenizer = load(shared / "tokenizers" / "qwen", "qwen-7b")
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A vocabulary of bytes in the two files of generation 2, with the special tokens that its config states."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    (tmp_path / "vocab.json").write_text(json.dumps({character: place for place, character in enumerate(alphabet)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    return tmp_path


def test_vocab_json_with_merges_is_read(later: Path) -> None:
    tokenizer = load(later, "qwen2-0.5b")
    assert tokenizer.decode(tokenizer.encode("Zeile 1\n 中")) == "Zeile 1\n 中"
    assert [tokenizer.token_id(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [256, 257, 258]
    assert set(tokenizer.stop_ids) == {256, 258}


def test_an_instruct_models_own_end_token_wins(later: Path) -> None:
    (later / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}')
    tokenizer = load(later, "qwen2-0.5b")
    assert (tokenizer.eos_id, tokenizer.pad_id) == (258, 256)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        load(tmp_path, "qwen2-0.5b")
    assert str(refusal.value) == (
        f"{tmp_path}: holds no tokenizer of a qwen. "
        "One of these is read: tokenizer.json, vocab.json with merges.txt, qwen.tiktoken."
    )


@pytest.mark.parametrize(("size", "system"), [("qwen-7b", True), ("qwen2-7b", True), ("qwen3-8b", False)])
def test_chat_is_chatml_with_the_system_message_of_the_generation(size: str, system: bool) -> None:
    family = load_family("qwen")
    template = family.chat_template(family.card.sizes[size])
    assert template is not None and template.stop == ("<|im_end|>",)
    opening = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" if system else ""
    turn = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert render_template(template.jinja, {"messages": [USER], "add_generation_prompt": True}) == opening + turn
    own = [{"role": "system", "content": "Be kind."}, USER]
    assert render_template(template.jinja, {"messages": own, "add_generation_prompt": True}) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n" + turn
    )
