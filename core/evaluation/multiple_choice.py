"""Questions with options: the model chooses the one that it holds likeliest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .likelihood import score_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..causal_lm import CausalLM
    from ..data.sample import Sample
    from .likelihood import Likelihood
    from .questions import Question
    from .shots import Asker


class MultipleChoice:
    """Accuracy over questions: each option is scored as the continuation of its question.

    ``acc`` takes the option with the largest log-probability, ``acc_norm`` that with the largest one divided by the
    option's length in characters. Of equal ones the first is taken.

    Source: Gao et al., EleutherAI/lm-evaluation-harness, lm_eval/api/task.py (``acc``, ``acc_norm``).
    """

    def __init__(self, name: str, questions: Sequence[Question], asker: Asker, *, by_letter: bool) -> None:
        """Encode all questions.

        Args:
            name: of the benchmark.
            questions: to be answered.
            asker: puts them.
            by_letter: list the options in the question and score their letters, in place of their texts.
        """
        self.name = name
        self._questions, self._asker, self._by_letter = questions, asker, by_letter
        self.samples: list[Sample] = []
        self._num_cut = 0
        for question in questions:
            text, continuations = put(question, by_letter=by_letter)
            for continuation in continuations:
                try:
                    sample, cut = asker.sample(text, continuation)
                except DataError as error:
                    raise DataError(f"{question.place}: {error}") from error
                self.samples.append(sample)
                self._num_cut += cut
        self.lines: list[dict[str, Any]] = []

    @property
    def num_items(self) -> int:
        """Options of all questions."""
        return len(self.samples)

    def run(self, model: CausalLM, *, batch_size: int, advance: Callable[[float], None]) -> dict[str, float]:
        """Return the accuracies; ``lines`` then holds what was chosen."""
        pad_id = self._asker.tokenizer.pad_id
        found = score_samples(model, self.samples, batch_size=batch_size, pad_id=pad_id, advance=advance)
        self.lines, start, right, right_norm = [], 0, 0, 0
        for question in self._questions:
            _, continuations = put(question, by_letter=self._by_letter)
            scored = found[start : start + len(continuations)]
            start += len(continuations)
            choice, choice_norm = choose(scored, [len(text) for text in continuations])
            right, right_norm = right + (choice == question.answer), right_norm + (choice_norm == question.answer)
            scores = [round(one.log_probability, 6) for one in scored]
            self.lines.append({
                "question": question.text, "options": list(question.options), "answer": question.answer,
                "log_probabilities": scores, "choice": choice, "choice_norm": choice_norm,
            })  # fmt: skip
        count = len(self._questions)
        acc = right / count
        error = math.sqrt(acc * (1 - acc) / max(1, count - 1))
        return {
            "acc": acc, "acc_norm": right_norm / count, "acc_stderr": error, "questions": count, "cut": self._num_cut,
        }  # fmt: skip


def choose(scored: Sequence[Likelihood], lengths: Sequence[int]) -> tuple[int, int]:
    """Return the option with the largest log-probability, and that with the largest one for its length."""
    sums = [one.log_probability for one in scored]
    means = [total / length for total, length in zip(sums, lengths, strict=True)]
    return sums.index(max(sums)), means.index(max(means))


def put(question: Question, *, by_letter: bool) -> tuple[str, list[str]]:
    """Return the text of a question and the continuations that are scored."""
    if not by_letter:
        return question.text, list(question.options)
    letters = [chr(ord("A") + place) for place in range(len(question.options))]
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip(letters, question.options, strict=True))
    return question.text + listed, letters
