"""Questions as prompts: with worked examples before them, as plain text or as a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.render import render_prompt, render_training
from ..data.sample import IGNORED, Sample
from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data.chat import ChatTemplate, Message
    from ..data.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Wording:
    """What stands around questions and answers in plain text."""

    question: str
    answer: str
    space: str
    """Between ``answer`` and what follows it."""


ENGLISH = Wording("Question: ", "Answer:", " ")
CHINESE = Wording("问题：", "答案：", "")


@dataclass(frozen=True, slots=True)
class Asker:
    """Puts questions to a model; each example is a question with its answer."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    """Writes examples as rounds of a conversation; ``None``: they are paragraphs of one text."""
    wording: Wording
    examples: Sequence[tuple[str, str]]
    longest: int
    """Prompt and continuation together, in tokens; what is longer loses its left end."""

    def prompt(self, question: str) -> list[int]:
        """Return the tokens after which an answer follows."""
        if self.template is not None:
            return render_prompt(self.template, self.tokenizer, self._messages(question))[-self.longest :]
        ids = self.tokenizer.encode(self._text(question))
        room = self.longest - len(self.tokenizer.prompt([]))
        return self.tokenizer.prompt(ids[max(0, len(ids) - room) :])

    def sample(self, question: str, continuation: str) -> tuple[Sample, bool]:
        """Return a question with one continuation, whose tokens are the labels, and whether anything was cut off."""
        if self.template is not None:
            prompt, answer = self._answered(self.template, question, continuation)
        else:
            # Tokenized in one piece, as a model would have read it: a token may reach over the border.
            context = self._text(question)
            whole = self.tokenizer.encode(context + self.wording.space + continuation)
            shared = _shared(whole, self.tokenizer.encode(context))
            prompt, answer = self.tokenizer.prompt(whole[:shared]), whole[shared:]
        if not answer:
            raise DataError(f"the option {continuation!r} becomes no token.")
        cut = max(0, len(prompt) + len(answer) - self.longest)
        if cut and self.template is None:
            prompt = self.tokenizer.prompt(whole[min(cut, shared) : shared])
        return _sample((prompt + answer)[-self.longest :], len(answer)), cut > 0

    def _answered(self, template: ChatTemplate, question: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a prompt and of an answer without the token that ends it."""
        messages = self._messages(question)
        prompt = render_prompt(template, self.tokenizer, messages)
        ids, _ = render_training(
            template, self.tokenizer, [*messages, {"role": "assistant", "content": continuation}]
        )  # fmt: skip
        stops = {*self.tokenizer.stop_ids, *map(self.tokenizer.token_id, template.stop)}
        answer = ids[len(prompt) :]
        while answer and answer[-1] in stops:
            answer = answer[:-1]
        return prompt, answer

    def _messages(self, question: str) -> list[Message]:
        messages: list[Message] = []
        for asked, answered in self.examples:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        return [*messages, {"role": "user", "content": question}]

    def _text(self, question: str) -> str:
        said = self.wording
        examples = "".join(f"{said.question}{q}\n{said.answer}{said.space}{a}\n\n" for q, a in self.examples)
        return f"{examples}{said.question}{question}\n{said.answer}"


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _sample(ids: list[int], num_labels: int) -> Sample:
    tokens = np.array(ids, dtype=np.int64)
    size = len(tokens) - 1
    labels = np.full(size, IGNORED, dtype=np.int64)
    first = max(0, size - num_labels)
    labels[first:] = tokens[first + 1 :]
    return Sample(tokens[:-1], labels, np.ones(size, dtype=np.int32), np.arange(size) < first + 1)
