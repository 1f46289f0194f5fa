"""BLEU and ROUGE against what the libraries' own pages print, and Chinese by hand."""

from __future__ import annotations

import pytest

from llm_run.core.evaluation.text_scores import is_chinese, text_scores

ANSWERS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]


def test_bleu_is_that_of_sacrebleus_own_example() -> None:
    # github.com/mjpost/sacrebleu, README, "Using SacreBLEU from Python"
    assert text_scores(ANSWERS, REFERENCES)["bleu4"] == pytest.approx(48.530827, abs=1e-5)


def test_rouge_is_that_of_rouge_scores_own_example() -> None:
    # github.com/google-research/google-research/tree/master/rouge, README
    found = text_scores(
        ["The quick brown dog jumps on the log."], [["The quick brown fox jumps over the lazy dog"]]
    )  # fmt: skip
    assert found["rouge1"] == pytest.approx(100 * 2 * 0.75 * (6 / 9) / (0.75 + 6 / 9))
    assert found["rougel"] == pytest.approx(100 * 2 * 0.625 * (5 / 9) / (0.625 + 5 / 9))


def test_references_may_differ_in_number_and_the_best_counts_for_rouge() -> None:
    found = text_scores(["a dog", "the fox ran"], [["the cat", "a dog"], ["the fox ran"]])
    assert (found["rouge1"], found["rouge2"], found["rougel"]) == (100.0, 100.0, 100.0)


def test_chinese_is_counted_by_words_and_by_characters() -> None:
    found = text_scores(["今天GPU不好"], [["今天GPU很好"]])
    # Words 今 天 GPU 不 好 against 今 天 GPU 很 好: 4 of 5; characters: 6 of 7.
    assert found["rouge1"] == pytest.approx(100 * 4 / 5)
    assert found["rouge1_char"] == pytest.approx(100 * 6 / 7)
    assert found["rouge2"] == pytest.approx(100 * 2 / 4)
    assert found["rouge2_char"] == pytest.approx(100 * 4 / 6)
    assert text_scores(["今天天气很好"], [["今天天气很好"]])["bleu4_char"] == pytest.approx(100.0)


@pytest.mark.parametrize(("text", "said"), [("今天天气很好", True), ("GPU 很好", True), ("the 好", False), ("", False)])
def test_chinese_is_what_has_a_third_of_its_characters(text: str, said: bool) -> None:
    assert is_chinese([text]) == said
