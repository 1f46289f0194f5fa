"""Answers to prompts, decoded greedily and kept for eyes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..engine.decode import generate
from ..engine.prompts import prompt_ids, read_prompts
from ..errors import DataError
from .text_scores import text_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from ..causal_lm import CausalLM
    from ..data.chat import ChatTemplate
    from ..data.records import BadRecords
    from ..data.tokenizer import Tokenizer
    from ..engine.prompts import PromptRecord
    from ..engine.request import Completion
    from ..engine.settings import SamplingSettings


def answer_all(
    model: CausalLM,
    prompts: Sequence[list[int]],
    settings: SamplingSettings,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    advance: Callable[[float], None] = lambda _: None,
) -> list[Completion]:
    """Answer prompts greedily, the longest first, and return the answers in the order of the prompts.

    Args:
        model: the network.
        prompts: token ids.
        settings: what ends an answer; how tokens are chosen is not looked at.
        tokenizer: gives the texts.
        batch_size: prompts decoded together; changes the speed only.
        advance: told how many prompts are answered.
    """
    greedy = replace(settings, strategy="greedy_search", repetition_penalty=1.0, num_beams=1)
    longest_first = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
    found: dict[int, Completion] = {}
    for start in range(0, len(prompts), batch_size):
        places = longest_first[start : start + batch_size]
        answers = generate(model, [prompts[place] for place in places], greedy, tokenizer=tokenizer)
        found.update(zip(places, answers, strict=True))
        advance(len(places))
    return [found[place] for place in range(len(prompts))]


class ReferenceAnswers:
    """Prompts of instruction records whose reference answers are compared with the model's."""

    def __init__(
        self, files: Sequence[Path], tokenizer: Tokenizer, template: ChatTemplate | None, bad: BadRecords, *,
        longest: int, most: int | None = None,
    ) -> None:  # fmt: skip
        """Read and render the records.

        Args:
            files: of records.
            tokenizer: the model's.
            template: writes the prompts.
            bad: what becomes of malformed records.
            longest: prompt in tokens; a longer one loses its left end.
            most: records; ``None`` for all.

        Raises:
            DataError: a record is malformed or has no reference answer, or there is none.
        """
        self._tokenizer = tokenizer
        self.records: list[PromptRecord] = []
        self.prompts: list[list[int]] = []
        self.references: list[list[str]] = []
        for record in (record for file in files for record in read_prompts(file, bad)):
            if most is not None and len(self.records) >= most:
                break
            try:
                references = _references(record)
                prompt = prompt_ids(record, tokenizer, template, longest=longest)
            except DataError as error:
                bad.handle(DataError(f"{record.place}: {error}"))
                continue
            self.records.append(record)
            self.prompts.append(prompt)
            self.references.append(references)
        if not self.records:
            raise DataError(f"{', '.join(map(str, files))}: holds no record with a reference answer.")

    def answer(
        self, model: CausalLM, settings: SamplingSettings, places: Sequence[int], *, batch_size: int,
        advance: Callable[[float], None] = lambda _: None,
    ) -> list[str]:  # fmt: skip
        """Return the model's answers to the records at ``places``."""
        prompts = [self.prompts[place] for place in places]
        found = answer_all(model, prompts, settings, self._tokenizer, batch_size=batch_size, advance=advance)
        return [completion.text for completion in found]

    def scores(self, answers: Sequence[str]) -> dict[str, float]:
        """Return BLEU and ROUGE of the answers to all records."""
        return text_scores(answers, self.references)

    def save(self, path: Path, answers: Sequence[str]) -> None:
        """Write each record with the model's answer, as JSONL."""
        lines = (
            {**record.fields, "tgt": record.target, "output": answer}
            for record, answer in zip(self.records, answers, strict=True)
        )
        write_lines(path, lines)


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as JSONL; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _references(record: PromptRecord) -> list[str]:
    """Return the reference answers: all of ``answers`` where a record has it, else ``tgt`` or the last turn."""
    several = record.fields.get("answers")
    if isinstance(several, list) and several and all(isinstance(text, str) for text in several):
        return list(several)
    if not record.target:
        raise DataError("has no reference answer (tgt, or a last turn of the assistant) to compare with.")
    return [record.target]
