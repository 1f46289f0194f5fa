"""Many prompts, answers in their order, whatever finishes first."""

from __future__ import annotations

import paddle
import pytest

from llm_run.core.engine.answer_times import AnswerTimes
from llm_run.core.engine.decode import generate
from llm_run.core.engine.offline import answer_in_order, running_engine
from llm_run.core.engine.request import Request
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.errors import LlmRunError
from llm_run.core.registry.manager import load_family


@pytest.fixture(scope="module")
def model():
    family = load_family("llama")
    paddle.seed(4)
    built = family.build_model(family.card.sizes["tiny"])
    built.eval()
    return built


def asked(amounts):
    return [
        Request(prompt=[5, 6, 7 + place], settings=SamplingSettings(max_new_tokens=amount), number=place)
        for place, amount in enumerate(amounts)
    ]


def lengths(requests):
    return [len(request.prompt) + request.settings.max_new_tokens for request in requests]


def test_answers_come_in_the_order_of_the_prompts_and_more_prompts_than_may_wait(model):
    requests = asked([30, 1, 2, 1, 9, 1, 1, 3, 1, 2])
    times = AnswerTimes()
    with running_engine(model, None, lengths(requests), max_running=2) as engine:
        found = []
        for completion, handle in answer_in_order(engine, requests):
            found.append(completion.ids)
            times.add(handle)
        lines = list(times.lines(engine.stats(), 2_000_000_000))
    assert found == [generate(model, [request.prompt], request.settings)[0].ids for request in requests]
    assert "prompts: " in lines[0] and "answers: " in lines[0] and lines[0].endswith("peak memory: 2.00 GB")
    assert lines[1].startswith("seconds at 50, 90 and 99 %: first token ") and "; whole " in lines[1]
    assert len(times.whole) == 10 and len(times.between_tokens) == 5


def test_the_cache_is_as_large_as_the_work(model):
    with running_engine(model, None, [20, 3]) as engine:
        assert engine.limits.cache_tokens == 48
    with running_engine(model, None, [20, 3], max_running=1) as engine:
        assert engine.limits.cache_tokens == 32
    with running_engine(model, None, [500] * 200) as engine:
        assert engine.limits.cache_tokens == 16384


def test_a_request_that_fails_ends_the_whole(model, monkeypatch):
    requests = asked([4, 4])
    with running_engine(model, None, lengths(requests)) as engine:
        monkeypatch.setattr(engine._runner, "run", lambda works: 1 / 0)
        with pytest.raises(LlmRunError, match="ZeroDivisionError"):
            list(answer_in_order(engine, requests))
