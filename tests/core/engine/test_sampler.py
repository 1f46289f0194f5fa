from __future__ import annotations

import numpy as np
import pytest

from llm_run.core.engine.request import Request
from llm_run.core.engine.sampler import Sampler
from llm_run.core.engine.settings import SamplingSettings


def sampler(*, number: int = 0, prompt: tuple[int, ...] = (1,), **settings: object) -> Sampler:
    return Sampler(Request(prompt=list(prompt), settings=SamplingSettings(**settings), number=number))  # type: ignore[arg-type]


def draws(chosen: Sampler, logits: list[float], count: int) -> list[int]:
    return [chosen.pick(np.array(logits, dtype=np.float32)) for _ in range(count)]


def test_tokens_come_as_often_as_softmax_says() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    counts = np.bincount(draws(sampler(strategy="sampling", seed=3), list(logits), 20_000), minlength=4)
    # Four standard deviations of a binomial share.
    expected = np.array([0.5, 0.3, 0.15, 0.05])
    assert (np.abs(counts / 20_000 - expected) < 4 * np.sqrt(expected * (1 - expected) / 20_000)).all()


def test_a_low_temperature_sharpens_before_top_p_cuts() -> None:
    # At temperature 1 both tokens are needed to hold 0.9; at 0.1 the first one holds nearly all.
    logits = [1.0, 0.4, -9.0]
    assert set(draws(sampler(strategy="sampling", top_p=0.9), logits, 200)) == {0, 1}
    assert set(draws(sampler(strategy="sampling", top_p=0.9, temperature=0.1), logits, 200)) == {0}


def test_the_same_seed_and_number_draw_the_same_tokens() -> None:
    logits = [0.0] * 50
    first, again = (draws(sampler(strategy="sampling", seed=5, number=2), logits, 30) for _ in range(2))
    assert first == again
    assert first != draws(sampler(strategy="sampling", seed=5, number=3), logits, 30)
    assert first != draws(sampler(strategy="sampling", seed=6, number=2), logits, 30)


def test_a_token_of_probability_0_is_never_drawn() -> None:
    logits = [-np.inf, 0.0, -np.inf, 0.0, -np.inf]
    assert set(draws(sampler(strategy="sampling"), logits, 500)) == {1, 3}


def test_the_penalty_covers_the_prompt_and_the_answer() -> None:
    chosen = sampler(repetition_penalty=2.0, prompt=(0,))
    logits = [5.0, 4.0, 3.0, 0.0]
    assert chosen.pick(np.array(logits, np.float32)) == 1
    chosen.accept(1)
    assert chosen.pick(np.array(logits, np.float32)) == 2


def test_a_stop_token_waits_for_the_shortest_answer() -> None:
    chosen = sampler(min_new_tokens=2, stop_ids=(0,))
    picked = []
    for _ in range(3):
        picked.append(chosen.pick(np.array([9.0, 1.0], np.float32)))
        chosen.accept(picked[-1])
    assert picked == [1, 1, 0]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"repetition_penalty": 1.1}, False),
        ({"strategy": "sampling"}, False),
        ({"strategy": "sampling", "temperature": 0.0}, True),
    ],
)
def test_plain_greedy_search_needs_no_look_at_the_logits(settings: dict[str, object], wanted: bool) -> None:
    assert sampler(**settings).wants_argmax is wanted
