"""The chat formats of llama 2 and 3, character by character as Meta publishes them, and in tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.sandbox import render_template
from llm_run.core.data.tokenizer import Tokenizer
from llm_run.core.errors import DataError
from llm_run.core.registry.manager import load_family

MESSAGES: list[Any] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello "},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Bye"},
]


def template(size: str) -> ChatTemplate:
    family = load_family("llama")
    found = family.chat_template(family.card.sizes[size])
    assert found is not None
    return found


def render(size: str, messages: list[Any], *, bos: str, eos: str) -> str:
    names = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
    return render_template(template(size).jinja, {"messages": messages, **names})


def test_llama_2_puts_the_system_message_into_the_first_turn() -> None:
    assert render("llama-2-7b", MESSAGES, bos="<s>", eos="</s>") == (
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST] Hi! </s><s>[INST] Bye [/INST]"
    )


def test_llama_3_opens_each_turn_with_a_header() -> None:
    assert render("llama-3-8b", MESSAGES, bos="<|begin_of_text|>", eos="") == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_llama_2_refuses_a_tool() -> None:
    with pytest.raises(DataError, match="llama 2 knows the roles system, user and assistant, not tool"):
        render("llama-2-7b", [{"role": "tool", "content": "7"}], bos="<s>", eos="</s>")


@pytest.mark.parametrize("size", ["llama-7b", "smollm2-135m", "tiny"])
def test_a_llama_without_published_format_has_none(size: str) -> None:
    family = load_family("llama")
    assert family.chat_template(family.card.sizes[size]) is None


@pytest.fixture
def llama_3(tmp_path: Path) -> Tokenizer:
    """A small byte-level vocabulary with the special tokens of llama 3."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Peer

    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    peer = Peer(models.BPE(vocab=alphabet, merges=[]))
    peer.pre_tokenizer, peer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
    peer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    first = peer.token_to_id("<|begin_of_text|>")
    peer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", first)]
    )
    peer.save(str(tmp_path / "tokenizer.json"))
    family = load_family("llama")
    return family.tokenizer(family.card.sizes["llama-3-8b"], tmp_path)


def test_llama_3_learns_each_answer_with_the_end_of_its_turn(llama_3: Tokenizer) -> None:
    chat = template("llama-3-8b")
    conversation = [*MESSAGES, {"role": "assistant", "content": "See you."}]
    ids, supervised = render_training(chat, llama_3, conversation)
    assert ids[: len(render_prompt(chat, llama_3, MESSAGES))] == render_prompt(chat, llama_3, MESSAGES)
    learnt = [token for token, is_learnt in zip(ids, supervised, strict=True) if is_learnt]
    assert llama_3.decode(learnt, skip_special=False) == "Hi!<|eot_id|>See you.<|eot_id|>"
    assert ids[0] == llama_3.bos_id and ids.count(ids[0]) == 1


def test_llama_3_stops_at_the_end_of_a_turn_and_of_a_text(llama_3: Tokenizer) -> None:
    assert set(llama_3.stop_ids) == {llama_3.token_id("<|end_of_text|>"), llama_3.token_id("<|eot_id|>")}
    assert llama_3.prompt([1, 2]) == [llama_3.bos_id, 1, 2]
