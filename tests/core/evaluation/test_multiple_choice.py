"""Choosing among options, against transformers, with and without chat template and examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.evaluation.multiple_choice import MultipleChoice
from llm_run.core.evaluation.questions import Question
from llm_run.core.evaluation.shots import ENGLISH, Asker

QUESTIONS = [
    Question(
        f"q:{place}", f"What do {place} and {place + 2} make?", (str(2 * place + 2), "nine", f"{place}, or more"), 0
    )
    for place in range(12)
]
EXAMPLES = [("What do 1 and 1 make?", "2"), ("What do 2 and 5 make?", "7")]
CHATML = ChatTemplate(
    jinja="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    stop=("<|im_end|>",),
)


def asker(peers: Any, template: ChatTemplate | None = None, examples: Any = (), longest: int = 256) -> Asker:
    return Asker(peers.tokenizer, template, ENGLISH, examples, longest)


def by_transformers(peers: Any, context: str, continuation: str) -> float:
    """As EleutherAI's harness does it: text encoded in one piece, <s> before it, the context's tokens not counted."""
    whole = [peers.tokenizer.bos_id, *peers.tokenizer.encode(context + continuation, allow_special=True)]
    before = 1 + len(peers.tokenizer.encode(context, allow_special=True))
    assert whole[:before] == [peers.tokenizer.bos_id, *peers.tokenizer.encode(context, allow_special=True)]
    return float(peers.log_probabilities(whole)[before - 1 :].sum())


@pytest.mark.parametrize("examples", [(), EXAMPLES], ids=["alone", "with examples"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_scores_and_accuracies_are_those_of_transformers(peers: Any, examples: Any, batch_size: int) -> None:
    measure = MultipleChoice("x", QUESTIONS, asker(peers, examples=examples), by_letter=False)
    figures = measure.run(peers.model, batch_size=batch_size, advance=lambda _: None)
    shown = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in examples)
    scores = np.array([
        [by_transformers(peers, f"{shown}Question: {one.text}\nAnswer:", f" {option}") for option in one.options]
        for one in QUESTIONS
    ])  # fmt: skip
    assert np.array([line["log_probabilities"] for line in measure.lines]) == pytest.approx(scores, rel=1e-5)
    lengths = np.array([[len(option) for option in one.options] for one in QUESTIONS])
    assert figures["acc"] == pytest.approx((scores.argmax(axis=1) == 0).mean())
    assert figures["acc_norm"] == pytest.approx(((scores / lengths).argmax(axis=1) == 0).mean())
    assert (figures["questions"], figures["cut"]) == (12, 0)


def test_with_a_chat_template_options_are_answers_without_their_end_token(peers: Any) -> None:
    measure = MultipleChoice("x", QUESTIONS[:3], asker(peers, CHATML, EXAMPLES), by_letter=False)
    measure.run(peers.model, batch_size=4, advance=lambda _: None)
    shown = "".join(
        f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n" for q, a in EXAMPLES
    )  # fmt: skip
    for line, question in zip(measure.lines, QUESTIONS, strict=False):
        context = f"{shown}<|im_start|>user\n{question.text}<|im_end|>\n<|im_start|>assistant\n"
        for score, option in zip(line["log_probabilities"], question.options, strict=True):
            ids, before = (peers.tokenizer.encode(text, allow_special=True) for text in (context + option, context))
            assert score == pytest.approx(peers.log_probabilities(ids)[len(before) - 1 :].sum(), rel=1e-5)


def test_by_letter_the_options_are_listed_and_letters_scored(peers: Any) -> None:
    measure = MultipleChoice("x", QUESTIONS[:2], asker(peers), by_letter=True)
    figures = measure.run(peers.model, batch_size=4, advance=lambda _: None)
    context = f"Question: {QUESTIONS[0].text}\nA. 2\nB. nine\nC. 0, or more\nAnswer:"
    expected = [by_transformers(peers, context, f" {letter}") for letter in "ABC"]
    assert measure.lines[0]["log_probabilities"] == pytest.approx(expected, rel=1e-5)
    assert figures["acc"] == figures["acc_norm"]  # letters are equally long


def test_what_is_too_long_loses_its_left_end_and_is_counted(peers: Any) -> None:
    measure = MultipleChoice("x", QUESTIONS[:2], asker(peers, longest=12), by_letter=False)
    figures = measure.run(peers.model, batch_size=4, advance=lambda _: None)
    assert figures["cut"] == 6
    assert max(len(sample.ids) for sample in measure.samples) == 11
    assert measure.samples[0].ids[0] == peers.tokenizer.bos_id
