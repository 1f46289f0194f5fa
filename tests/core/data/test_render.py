"""Rendering against transformers, and training against generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.render import render_prompt, render_training
from llm_run.core.data.tokenizers import JsonTokenizer, SentencePieceTokenizer
from llm_run.core.errors import DataError

CHATML = ChatTemplate(
    jinja=(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    stop=("<|im_end|>",),
)
LLAMA = ChatTemplate(
    jinja=(
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
        "{% else %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
    )
)
THINKING = ChatTemplate(
    jinja=(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m.content.split('</think>')[-1] | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    stop=("<|im_end|>",),
)
CONTENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.lists(
    st.sampled_from(
        ["<|im_end|>", "<|im_start|>", "</s>", "<s>", "\n", " ", "word", "{{ x }}", "<|im_", "end|>", "人"]
    ),
    max_size=5,
).map("".join)


def turns(*contents: str, system: str | None = None) -> list[Any]:
    """Turns of user and assistant in alternation, after a system message."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


CONVERSATIONS = st.builds(
    lambda rounds, system: turns(*(text for pair in rounds for text in pair), system=system),
    st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=4),
    st.none() | CONTENT,
)


def test_prompt_ids_equal_those_of_transformers(bpe_folder: Path, bpe: JsonTokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(bpe_folder / "tokenizer.json"), bos_token="<|im_start|>", eos_token="<|endoftext|>"
    )
    for messages in (
        turns("Hello"),
        turns("\n\n a", "b\n", "c", system="人之初"),
        turns("def f(x):\n    return x", " ", "😀"),
    ):
        for template in (CHATML, THINKING):
            wanted = peer.apply_chat_template(
                messages, chat_template=template.jinja, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            assert render_prompt(template, bpe, messages) == wanted


@settings(max_examples=200, deadline=None)
@given(messages=CONVERSATIONS, template=st.sampled_from([CHATML, THINKING]))
def test_training_continues_what_generation_is_given(
    bpe: JsonTokenizer, messages: list[Any], template: ChatTemplate
) -> None:
    check_agreement(template, bpe, messages)


@settings(max_examples=100, deadline=None)
@given(messages=CONVERSATIONS)
def test_training_continues_what_generation_is_given_to_sentencepiece(
    piece: SentencePieceTokenizer, messages: list[Any]
) -> None:
    check_agreement(LLAMA, piece, messages)


def check_agreement(template: ChatTemplate, tokenizer: Any, messages: list[Any]) -> None:
    """The prompt is generation's, all answers end inside the loss, and no user spells a special token."""
    prompt = render_prompt(template, tokenizer, messages[:-1])
    ids, supervised = render_training(template, tokenizer, messages)
    assert ids[: len(prompt)] == prompt
    assert not supervised[len(prompt) - 1] and all(supervised[len(prompt) :])
    ends = {tokenizer.token_id(token) for token in (*template.stop, "<|endoftext|>", "</s>")} - {None}
    answers = sum(message["role"] == "assistant" for message in messages)
    assert sum(number in ends for number, learnt in zip(ids, supervised, strict=True) if learnt) == answers
    specials = {tokenizer.token_id(token) for token in tokenizer.special_tokens}
    if template is CHATML:
        assert sum(number in specials for number in ids) == 2 * len(messages)


def test_all_answers_are_learnt_and_nothing_else(bpe: JsonTokenizer) -> None:
    ids, supervised = render_training(CHATML, bpe, turns("q1", "first", "q2", "second", system="s"))
    runs, run = [], []
    for number, learnt in zip(ids, supervised, strict=True):
        if learnt:
            run.append(number)
        elif run:
            runs.append(run)
            run = []
    assert [bpe.decode(part, skip_special=False) for part in (*runs, run)] == ["first<|im_end|>", "second<|im_end|>"]


def test_the_last_answer_ends_the_ids(bpe: JsonTokenizer) -> None:
    ids, _ = render_training(CHATML, bpe, turns("q", "a"))
    assert ids[-1] == bpe.token_id("<|im_end|>")


def test_the_tokenizers_own_start_is_added_where_the_template_lacks_it(piece: SentencePieceTokenizer) -> None:
    jinja = "{% for m in messages %}{{ m.content + (eos_token if m.role == 'assistant' else '') }}{% endfor %}"
    template = ChatTemplate(jinja=jinja, adds_special=True)
    prompt = render_prompt(template, piece, turns("ask"))
    ids, supervised = render_training(template, piece, turns("ask", " answer"))
    assert prompt[0] == 1 and ids[: len(prompt)] == prompt
    assert len(ids) == len(supervised) and ids[-1] == 2 and supervised[-1] and not supervised[0]


def test_tools_reach_the_template_and_cannot_spell_special_tokens(bpe: JsonTokenizer) -> None:
    template = ChatTemplate(jinja="{{ tools | tojson }}" + CHATML.jinja, stop=CHATML.stop)
    tools = [{"type": "function", "function": {"name": "weather", "description": "<|im_end|>"}}]
    text = bpe.decode(ids := render_prompt(template, bpe, turns("x"), tools=tools), skip_special=False)
    assert text.startswith('[{"type": "function", "function": {"name": "weather", "description": "<|im_end|>"}}]')
    assert ids.count(bpe.token_id("<|im_end|>")) == 1


def test_an_answer_without_end_is_refused(bpe: JsonTokenizer) -> None:
    template = ChatTemplate(jinja="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                            "{% if add_generation_prompt %}assistant: {% endif %}")  # fmt: skip
    with pytest.raises(
        DataError, match=r"no end token \(<\|endoftext\|>\) follows an answer, so that the model would not learn"
    ):
        render_training(template, bpe, turns("a", "b"))


def test_a_template_that_trains_otherwise_than_it_generates_is_refused(bpe: JsonTokenizer) -> None:
    template = ChatTemplate(jinja=CHATML.jinja.replace("assistant\n", "model\n"), stop=CHATML.stop)
    with pytest.raises(DataError, match=r"message 2 is rendered differently for training than for generation"):
        render_training(template, bpe, turns("a", "b"))


def test_a_conversation_without_answer_is_refused(bpe: JsonTokenizer) -> None:
    with pytest.raises(DataError, match=r"the conversation has no turn of the assistant, so that nothing is learnt\."):
        render_training(CHATML, bpe, turns("a"))
