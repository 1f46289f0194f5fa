"""BLEU and ROUGE of answers against references, computed by sacrebleu and rouge-score."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LIBRARIES = {"sacrebleu": "sacrebleu", "rouge_score": "rouge-score"}
"""Package by module; both are in the extra ``eval``."""
CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
KINDS = ("rouge1", "rouge2", "rougeL")


def missing_libraries() -> list[str]:
    """Return the packages that are not installed; imports none of them."""
    return [package for module, package in LIBRARIES.items() if importlib.util.find_spec(module) is None]


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether Chinese characters are at least a third of what is no white space."""
    joined = "".join("".join(texts).split())
    return bool(joined) and 3 * len(CHINESE.findall(joined)) >= len(joined)


def text_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return BLEU-4 of the corpus and the mean F1 of ROUGE-1, 2 and L, each from 0 to 100.

    Words are those of sacrebleu's ``13a`` (BLEU) and of rouge-score (ROUGE). Where the references are Chinese, all of
    these count sacrebleu's ``zh`` words, and ``..._char`` counts single characters.

    Args:
        answers: generated texts.
        references: of each answer, at least one; ROUGE counts the best one.

    Source: Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE); Post 2018, arXiv:1804.08771 (tokenization).
    """
    if not is_chinese([text for texts in references for text in texts]):
        return {"bleu4": _bleu(answers, references, "13a"), **_rouge(answers, references, None)}
    scores: dict[str, float] = {}
    for end, tokenize in (("", "zh"), ("_char", "char")):
        scores[f"bleu4{end}"] = _bleu(answers, references, tokenize)
        found = _rouge(answers, references, _SacrebleuWords(tokenize))
        scores |= {f"{name}{end}": value for name, value in found.items()}
    return scores


def _bleu(answers: Sequence[str], references: Sequence[Sequence[str]], tokenize: str) -> float:
    from sacrebleu.metrics.bleu import BLEU

    most = max(map(len, references))
    # sacrebleu leaves out a reference that is None, although its annotation does not say so.
    streams: Any = [[texts[place] if place < len(texts) else None for texts in references] for place in range(most)]
    return float(BLEU(tokenize=tokenize).corpus_score(list(answers), streams).score)


def _rouge(answers: Sequence[str], references: Sequence[Sequence[str]], tokenizer: Any) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    scorer = RougeScorer(list(KINDS), tokenizer=tokenizer)
    found = [scorer.score_multi(list(texts), answer) for answer, texts in zip(answers, references, strict=True)]
    return {kind.lower(): 100 * sum(one[kind].fmeasure for one in found) / len(found) for kind in KINDS}


class _SacrebleuWords:
    """One of sacrebleu's tokenizers, as rouge-score wants it."""

    def __init__(self, name: str) -> None:
        from sacrebleu.metrics.bleu import BLEU

        self._tokenize = BLEU(tokenize=name).tokenizer

    def tokenize(self, text: str) -> list[str]:
        words: list[str] = self._tokenize(text).split()
        return words
