"""Label and truncation rules of instruction data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.conversation import read_conversation
from llm_run.core.data.encoding import Encoder, to_sample
from llm_run.core.data.render import render_prompt
from llm_run.core.data.sample import IGNORED
from llm_run.core.data.tokenizers import JsonTokenizer, SentencePieceTokenizer
from llm_run.core.errors import DataError

CHATML = ChatTemplate(
    jinja=(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    stop=("<|im_end|>",),
)


def pair(src: Any, tgt: Any) -> Any:
    """A record of the seed's kind."""
    return read_conversation({"src": src, "tgt": tgt})


def test_without_template_question_and_answer_follow_each_other(piece: SentencePieceTokenizer) -> None:
    encoded = Encoder(piece, None, 64, 128).encode(pair("the dog", "jumps"))
    question, answer = piece.encode("the dog"), piece.encode("jumps")
    assert encoded.ids == [1, *question, *answer, 2]
    assert encoded.supervised == [False] * (1 + len(question)) + [True] * (len(answer) + 1)
    assert not encoded.cut


def test_a_long_prompt_loses_its_left_end_and_keeps_its_start_token(piece: SentencePieceTokenizer) -> None:
    question = piece.encode("one two three four five six seven eight")
    encoded = Encoder(piece, None, 6, 32).encode(pair("one two three four five six seven eight", "a"))
    assert encoded.ids[:6] == [1, *question[-5:]]
    assert encoded.supervised.index(True) == 6 and encoded.cut


def test_a_long_answer_loses_its_right_end_and_gets_no_end_token(piece: SentencePieceTokenizer) -> None:
    answer = piece.encode("jumps over the lazy dog")
    room = len(answer) - 2
    encoded = Encoder(piece, None, 8, 3 + room).encode(pair("ab", "jumps over the lazy dog"))
    prompt = [1, *piece.encode("ab")]
    assert encoded.ids == (prompt + answer)[: 3 + room] and encoded.cut


def test_an_answer_that_just_fits_gets_no_end_token(piece: SentencePieceTokenizer) -> None:
    """The end is appended where the answer is shorter than its room, as the seed does."""
    prompt, answer = [1, *piece.encode("ab")], piece.encode("dog")
    exact = Encoder(piece, None, 8, len(prompt) + len(answer)).encode(pair("ab", "dog"))
    assert exact.ids == prompt + answer
    roomy = Encoder(piece, None, 8, len(prompt) + len(answer) + 1).encode(pair("ab", "dog"))
    assert roomy.ids == [*prompt, *answer, 2]


def test_labels_are_the_next_tokens_of_the_answer() -> None:
    sample = to_sample(np.array([5, 6, 7, 8, 9]), np.array([False, False, True, True, True]))
    assert sample.ids.tolist() == [5, 6, 7, 8]
    assert sample.labels.tolist() == [IGNORED, 7, 8, 9]
    assert sample.prefix.tolist() == [True, True, False, False]
    assert sample.segments.tolist() == [1] * 4
    assert (sample.ids.dtype, sample.labels.dtype, sample.segments.dtype) == (np.int64, np.int64, np.int32)


def test_oldest_rounds_go_first_and_the_system_message_stays(bpe: JsonTokenizer) -> None:
    messages = [{"role": "system", "content": "be brief"}]
    for place in range(4):
        messages += [
            {"role": "user", "content": f"question {place}"},
            {"role": "assistant", "content": f"answer {place}"},
        ]
    conversation = read_conversation({"messages": messages})
    whole = Encoder(bpe, CHATML, 500, 1000).encode(conversation)
    assert not whole.cut
    for size in range(60, len(whole.ids)):
        part = Encoder(bpe, CHATML, 50, size).encode(conversation)
        assert part.cut and len(part.ids) <= size
        text = bpe.decode(part.ids, skip_special=False)
        first = 4 - text.count("question")
        assert text == bpe.decode(bpe.encode("<|im_start|>system\nbe brief<|im_end|>\n" + "".join(
            f"<|im_start|>user\nquestion {place}<|im_end|>\n<|im_start|>assistant\nanswer {place}<|im_end|>\n"
            for place in range(first, 4)), allow_special=True)[:-1], skip_special=False)  # fmt: skip
        learnt = [len(bpe.encode(f"answer {place}")) + 1 for place in range(first, 4)]
        assert sum(part.supervised) == sum(learnt)


def test_a_last_round_that_is_too_long_keeps_the_template_whole(bpe: JsonTokenizer) -> None:
    conversation = pair("the quick brown fox " * 30, "jumps over the lazy dog " * 30)
    encoded = Encoder(bpe, CHATML, 40, 64).encode(conversation)
    prompt = encoded.supervised.index(True)
    assert prompt <= 40 and len(encoded.ids) == 64 and encoded.cut
    text = bpe.decode(encoded.ids[:prompt], skip_special=False)
    assert text.startswith("<|im_start|>user\nthe quick") and text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    shortened = text.removeprefix("<|im_start|>user\n").removesuffix("<|im_end|>\n<|im_start|>assistant\n")
    assert encoded.ids[:prompt] == render_prompt(CHATML, bpe, [{"role": "user", "content": shortened}])
    assert all(encoded.supervised[prompt:])


def test_a_question_that_fits_stays_whole_where_only_the_answer_is_long(bpe: JsonTokenizer) -> None:
    encoded = Encoder(bpe, CHATML, 40, 64).encode(pair("short", "jumps over the lazy dog " * 30))
    assert encoded.ids[: encoded.supervised.index(True)] == render_prompt(
        CHATML, bpe, [{"role": "user", "content": "short"}]
    )


def test_turns_after_the_last_answer_are_left_out(bpe: JsonTokenizer) -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "unanswered"},
    ]
    text = bpe.decode(Encoder(bpe, CHATML, 50, 100).encode(read_conversation({"messages": turns})).ids)
    assert "unanswered" not in text


def test_a_system_message_that_fills_everything_is_said(bpe: JsonTokenizer) -> None:
    turns = [
        {"role": "system", "content": "long " * 200},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    with pytest.raises(DataError, match=r"nothing is left to learn within max_length 64: the prompt fills it\."):
        Encoder(bpe, CHATML, 40, 64).encode(read_conversation({"messages": turns}))


def test_what_needs_a_template_is_said(bpe: JsonTokenizer) -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    with pytest.raises(DataError, match=r"need a chat template \(--chat_template\)\."):
        Encoder(bpe, None, 40, 64).encode(read_conversation({"messages": turns}))
