from __future__ import annotations

import pytest

from llm_run.core.config.groups import DecodingOptions
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.errors import RefusedError


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_new_tokens": 0}, "--max_new_tokens: 0 is out of range. Give 1 or more."),
        ({"min_new_tokens": 9, "max_new_tokens": 8},
         "--min_new_tokens: 9 is out of range. Give 0 to max_new_tokens (8)."),
        ({"temperature": -0.5}, "--temperature: -0.5 is out of range. Give 0 (greedy) or more."),
        ({"top_k": -1}, "--top_k: -1 is out of range. Give 0 (all tokens) or more."),
        ({"top_p": 1.5}, "--top_p: 1.5 is out of range. Give 0 to 1."),
        ({"min_p": float("nan")}, "--min_p: nan is out of range. Give 0 to 1."),
        ({"repetition_penalty": 0.0}, "--repetition_penalty: 0.0 is out of range. Give more than 0; 1 is none."),
        ({"seed": -1}, "--seed: -1 is out of range. Give 0 or more."),
        ({"num_beams": 0}, "--num_beams: 0 is out of range. Give 1 or more."),
        ({"stop": ("a", "")}, "--stop: '' is empty and would end every answer at once. Leave it out."),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_with_its_range(values: dict[str, object], said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        SamplingSettings(**values)  # type: ignore[arg-type]
    assert str(caught.value) == said


def test_all_values_out_of_range_are_named_at_once() -> None:
    with pytest.raises(RefusedError) as caught:
        SamplingSettings(top_p=2.0, min_p=2.0, top_k=-3)
    assert [problem.key for problem in caught.value.problems] == ["--top_k", "--top_p", "--min_p"]


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RefusedError) as caught:
        SamplingSettings.from_options(DecodingOptions(decode_strategy="contrastive"), seed=0, stop_ids=())
    said = "--decode_strategy: 'contrastive' is unknown. Allowed: sampling, greedy_search, beam_search."
    assert str(caught.value) == said


def test_every_decoding_option_that_shapes_an_answer_reaches_the_settings() -> None:
    options = DecodingOptions(
        max_new_tokens=7, min_new_tokens=2, decode_strategy="beam_search", temperature=0.3, top_k=5, top_p=0.8,
        min_p=0.1, repetition_penalty=1.3, num_beams=3, length_penalty=0.5, stop=("END",),
    )  # fmt: skip
    settings = SamplingSettings.from_options(options, seed=9, stop_ids=(4,))
    assert settings == SamplingSettings(
        strategy="beam_search", max_new_tokens=7, min_new_tokens=2, temperature=0.3, top_k=5, top_p=0.8, min_p=0.1,
        repetition_penalty=1.3, num_beams=3, length_penalty=0.5, stop=("END",), stop_ids=(4,), seed=9,
    )  # fmt: skip


def test_temperature_0_is_greedy_search() -> None:
    assert SamplingSettings(strategy="sampling", temperature=0.0).is_greedy
    assert not SamplingSettings(strategy="sampling", temperature=0.1).is_greedy
