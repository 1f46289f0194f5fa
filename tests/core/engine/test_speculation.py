"""Guesses change how many steps an answer takes, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.engine.decode import generate
from llm_run.core.engine.engine import Engine, EngineLimits
from llm_run.core.engine.request import Request
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.engine.speculation import DraftModel, PromptLookup, make_drafter
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import load_family

FAMILIES = ["llama", "chatglm", "bloom"]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> Any:
    """A model, and another one of the same vocabulary that seldom agrees with it."""
    family = load_family(request.param)
    built = []
    for seed in (4, 5):
        paddle.seed(seed)
        built.append(family.build_model(family.card.sizes["tiny"]))
        built[-1].eval()
    return built


def drafters(pair: Any) -> dict[str, Any]:
    size = pair[0].config.vocab_size
    return {"lookup": PromptLookup(3), "itself": DraftModel(pair[0], 4, size), "other": DraftModel(pair[1], 2, size)}


def ask(model: Any, drafter: Any, requests: list[Request], **limits: int) -> tuple[list[list[int]], Any]:
    engine = Engine(
        model, None, EngineLimits(**({"cache_tokens": 160, "block_tokens": 8, "step_tokens": 24} | limits)),
        drafter=drafter,
    )  # fmt: skip
    engine.start()
    handles = [engine.submit(request) for request in requests]
    answers = [[event.token for event in handle] for handle in handles]
    engine.drain(10)
    engine.check()
    engine.stop()
    return answers, engine.stats().counts


@pytest.mark.parametrize("strategy", ["greedy_search", "sampling"])
@pytest.mark.parametrize("kind", ["lookup", "itself", "other"])
def test_answers_are_those_without_guessing(pair: Any, kind: str, strategy: Any) -> None:
    settings = SamplingSettings(
        max_new_tokens=20, strategy=strategy, top_k=3, repetition_penalty=1.0 if strategy == "sampling" else 1.1
    )
    generator = np.random.default_rng(0)
    requests = [
        Request(prompt=generator.integers(3, 20, size).tolist(), settings=settings, number=number)
        for number, size in enumerate((3, 20, 30, 9))
    ]
    expected = [generate(pair[0], [one.prompt], settings, numbers=[one.number])[0].ids for one in requests]
    answers, counts = ask(pair[0], drafters(pair)[kind], requests)
    assert answers == expected
    assert kind == "lookup" or counts.guessed > 0


def test_guesses_of_the_model_itself_are_right_and_save_steps(pair: Any) -> None:
    request = Request(prompt=[5, 6, 7, 9], settings=SamplingSettings(max_new_tokens=20))
    answers, counts = ask(pair[0], drafters(pair)["itself"], [request])
    assert counts.guessed == counts.guessed_right == 16
    assert counts.steps == 4
    assert answers[0] == generate(pair[0], [request.prompt], request.settings)[0].ids


def test_a_stop_token_among_right_guesses_ends_the_answer(pair: Any) -> None:
    free = generate(pair[0], [[5, 6, 7, 9]], SamplingSettings(max_new_tokens=20))[0].ids
    settings = SamplingSettings(max_new_tokens=20, stop_ids=(free[6],))
    expected = generate(pair[0], [[5, 6, 7, 9]], settings)[0].ids
    answers, _ = ask(pair[0], drafters(pair)["itself"], [Request(prompt=[5, 6, 7, 9], settings=settings)])
    assert answers[0] == expected


def test_lookup_proposes_what_followed_the_longest_and_newest_match() -> None:
    lookup = PromptLookup(3)
    sequence: Any = SimpleNamespace(tokens=[1, 2, 3, 4, 9, 8, 2, 3, 5, 6, 1, 2, 3])
    assert lookup.propose(sequence, 9) == [4, 9, 8]
    sequence.tokens = [2, 3, 4, 7, 2, 3, 5, 6, 9, 2, 3]
    assert lookup.propose(sequence, 2) == [5, 6]
    sequence.tokens = [1, 2, 3, 4]
    assert lookup.propose(sequence, 3) == []
    sequence.tokens = [7]
    assert lookup.propose(sequence, 3) == []


def test_a_draft_model_is_loaded_from_its_directory(reference: Any, llama: Any) -> None:
    options: Any = SimpleNamespace(num_draft_tokens=3, draft_model=str(reference.directory))
    drafter = make_drafter(options, llama.config)
    answers, counts = ask(llama, drafter, [Request(prompt=[5, 6, 7], settings=SamplingSettings(max_new_tokens=12))])
    assert answers[0] == reference.answer([5, 6, 7], max_new_tokens=12, eos_token_id=None)
    assert counts.guessed == counts.guessed_right > 0


def test_a_draft_model_of_another_vocabulary_is_refused(reference: Any, pair: Any) -> None:
    options: Any = SimpleNamespace(num_draft_tokens=3, draft_model=str(reference.directory))
    with pytest.raises(RefusedError, match=f"has 96 tokens, and the model {pair[0].config.vocab_size}"):
        make_drafter(options, pair[0].config)


def test_without_draft_tokens_nobody_guesses(llama: Any) -> None:
    options: Any = SimpleNamespace(num_draft_tokens=0, draft_model=None)
    assert make_drafter(options, llama.config) is None
