from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_run.core.engine.decode import generate
from llm_run.core.engine.settings import SamplingSettings

PROMPTS = [np.random.default_rng(0).integers(3, 96, size=size).tolist() for size in (5, 9, 3, 17, 1)]


@pytest.mark.parametrize("stop_ids", [(2,), (2, 7, 11)])
@pytest.mark.parametrize(
    ("num_beams", "length_penalty", "early_stopping"),
    [(2, 1.0, False), (4, 1.0, False), (4, 1.0, True), (3, 0.0, False), (5, 2.0, False), (4, -1.0, True)],
)
def test_beam_search_equals_transformers(
    llama: Any, reference: Any, stop_ids: tuple[int, ...], num_beams: int, length_penalty: float, early_stopping: bool
) -> None:
    how = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
    settings = SamplingSettings(strategy="beam_search", max_new_tokens=20, stop_ids=stop_ids, **how)  # type: ignore[arg-type]
    answers = [completion.ids for completion in generate(llama, PROMPTS, settings)]
    expected = [reference.answer(prompt, max_new_tokens=20, eos_token_id=list(stop_ids), **how) for prompt in PROMPTS]
    assert answers == expected


def test_beam_search_with_penalty_and_shortest_length_equals_transformers(llama: Any, reference: Any) -> None:
    how: dict[str, Any] = {"num_beams": 3, "repetition_penalty": 1.4, "min_new_tokens": 6}
    settings = SamplingSettings(strategy="beam_search", max_new_tokens=14, stop_ids=(2, 7), **how)
    answers = [completion.ids for completion in generate(llama, PROMPTS, settings)]
    assert answers == [reference.answer(prompt, max_new_tokens=14, eos_token_id=[2, 7], **how) for prompt in PROMPTS]


def test_the_finish_reason_says_whether_the_best_beam_ended(llama: Any) -> None:
    settings = SamplingSettings(strategy="beam_search", max_new_tokens=20, stop_ids=(2, 7, 11), num_beams=4)
    for completion in generate(llama, PROMPTS, settings):
        assert completion.finish_reason == ("stop" if completion.ids[-1] in (2, 7, 11) else "length")
        assert completion.finish_reason == "stop" or len(completion.ids) == 20


def test_one_beam_is_greedy_search(llama: Any) -> None:
    beam = SamplingSettings(strategy="beam_search", max_new_tokens=12, stop_ids=(2,), num_beams=1)
    greedy = SamplingSettings(max_new_tokens=12, stop_ids=(2,))
    assert [one.ids for one in generate(llama, PROMPTS, beam)] == [one.ids for one in generate(llama, PROMPTS, greedy)]
