"""Batched, cut into chunks, sharing blocks, preempted: the tokens are those of one request alone."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import paddle
import pytest

from llm_run.core.adapters.prefix import apply_prefix
from llm_run.core.adapters.prefix_settings import PrefixSettings
from llm_run.core.engine.decode import generate
from llm_run.core.engine.engine import Engine, EngineLimits
from llm_run.core.engine.failures import EngineDeadError, QueueFullError
from llm_run.core.engine.fused_runner import FusedRunner
from llm_run.core.engine.handle import Handle
from llm_run.core.engine.request import Request
from llm_run.core.engine.sequence import Sequence
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.engine.step_runner import StepRunner
from llm_run.core.errors import LlmRunError, RefusedError
from llm_run.core.ops import native
from llm_run.core.registry.manager import load_family

FAMILIES = ["llama", "qwen", "chatglm", "bloom"]


@pytest.fixture(scope="module")
def mixes() -> ModuleType:
    """The benchmark that runs 200 mixes of each."""
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "engine_mixes.py"
    spec = importlib.util.spec_from_file_location("engine_mixes", path)
    assert spec and spec.loader
    sys.modules["engine_mixes"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(mixes):
    built = {}
    for name in FAMILIES:
        family = load_family(name)
        paddle.seed(4)
        built[name] = family.build_model(family.card.sizes["tiny"])
        mixes.redraw(built[name])
        built[name].eval()
    return built


def settings(**fields):
    return SamplingSettings(**({"max_new_tokens": 8} | fields))


def prompts(config, count, generator, *, longest=40):
    """Some of them begin alike, so that blocks are shared."""
    shared = generator.integers(3, config.vocab_size - 8, 24).tolist()
    made = []
    for _ in range(count):
        own = generator.integers(3, config.vocab_size - 8, int(generator.integers(1, longest))).tolist()
        made.append(shared + own if generator.random() < 0.5 else own)
    return made


def run(engine, requests):
    engine.start()
    handles = [engine.submit(request) for request in requests]
    answers = [[event.token for event in handle] for handle in handles]
    engine.drain(10)
    engine.check()
    engine.stop()
    return answers, handles


@pytest.mark.parametrize("name", FAMILIES)
def test_random_mixes_give_the_tokens_of_one_request_alone(name, models, mixes):
    outcome = mixes.Mixes(models[name], seed=7).run(20)
    assert outcome.mismatches == 0
    assert outcome.answers > 60 and outcome.guessed_right > 0
    # A prompt that sees itself both ways is computed whole.
    assert models[name].config.prefix_lm or (outcome.preempted > 0 and outcome.found > 0)


@pytest.mark.parametrize(("name", "size", "is_fused"), [
    ("llama", 5, False), ("chatglm", 5, False), ("llama", 16, True), ("bloom", 8, True), ("qwen", 8, True),
])  # fmt: skip
def test_a_tuned_prefix_is_seen_by_every_request(name, size, is_fused, models):
    model = models[name]
    apply_prefix(model, PrefixSettings(num_tokens=size))
    generator = np.random.default_rng(2)
    asked = [Request(prompt=prompt, settings=settings()) for prompt in prompts(model.config, 5, generator)]
    expected = [generate(model, [request.prompt], request.settings)[0].ids for request in asked]
    engine = Engine(model, None, EngineLimits(cache_tokens=96, block_tokens=8, step_tokens=20))
    assert isinstance(engine._runner, FusedRunner) == (is_fused and native.library() is not None)
    answers, _ = run(engine, asked)
    model.prefix = None
    assert answers == expected
    assert answers != [generate(model, [request.prompt], request.settings)[0].ids for request in asked]


def test_a_small_cache_preempts_and_a_shared_beginning_is_found_again(models):
    model = models["llama"]
    generator = np.random.default_rng(3)
    beginning = generator.integers(3, 500, 32).tolist()
    requests = [Request(prompt=[*beginning, number + 5], settings=settings(max_new_tokens=30)) for number in range(4)]
    engine = Engine(model, None, EngineLimits(cache_tokens=112, block_tokens=8, step_tokens=16))
    answers, handles = run(engine, requests)
    assert answers == [generate(model, [r.prompt], r.settings)[0].ids for r in requests]
    assert engine.stats().preemptions > 0
    assert any(handle.num_cached >= 24 for handle in handles)


def test_a_seed_draws_the_same_tokens_alone_and_among_others(models):
    model = models["qwen"]
    generator = np.random.default_rng(5)
    asked = Request(prompt=[5, 6, 7], settings=settings(strategy="sampling", seed=11, max_new_tokens=12), number=2)
    alone, _ = run(Engine(model, None), [asked])
    others = [
        Request(prompt=prompt, settings=settings(strategy="sampling", seed=number))
        for number, prompt in enumerate(prompts(model.config, 15, generator))
    ]
    among, _ = run(Engine(model, None, EngineLimits(step_tokens=32)), [*others[:7], asked, *others[7:]])
    assert among[7] == alone[0]


def test_log_probabilities_of_prompt_and_answer_are_those_of_the_model(models):
    model = models["llama"]
    prompt = np.random.default_rng(1).integers(3, 500, 20).tolist()
    request = Request(prompt=prompt, settings=settings(max_new_tokens=3), num_logprobs=2, prompt_logprobs=True)
    engine = Engine(model, None, EngineLimits(step_tokens=7))
    engine.start()
    handle = engine.submit(request)
    events = list(handle)
    engine.stop()
    ids = [*prompt, *(event.token for event in events)]
    positions = paddle.arange(len(ids)).unsqueeze(0)
    from llm_run.core.ops import AttentionMask

    with paddle.no_grad():
        logits = model.head(model(paddle.to_tensor([ids]), positions, AttentionMask())).numpy()[0].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert handle.prompt_logprobs[0] is None and len(handle.prompt_logprobs) == len(prompt)
    told = [*handle.prompt_logprobs[1:], *(event.logprob for event in events)]
    for place, entry in enumerate(told):
        assert entry.token == ids[place + 1]
        assert entry.logprob == pytest.approx(expected[place, ids[place + 1]], abs=1e-4)
        assert [token for token, _, _ in entry.top] == np.argsort(-expected[place])[:2].tolist()


def test_cancelled_requests_free_their_blocks_from_any_state(models):
    engine = Engine(models["llama"], None, EngineLimits(cache_tokens=256, max_running=2))
    engine.start()
    handles = [engine.submit(Request(prompt=[7, 8, 9], settings=settings(max_new_tokens=60))) for _ in range(6)]
    next(iter(handles[0]))
    for handle in handles:
        handle.cancel()
    for handle in handles:
        with pytest.raises(LlmRunError, match="cancelled"):
            list(handle)
    assert engine.drain(10)
    assert engine.stats().cache_usage == 0.0
    engine.check()
    engine.stop()


def test_what_can_never_fit_and_one_too_many_are_refused(models):
    engine = Engine(models["llama"], None, EngineLimits(cache_tokens=64, max_running=1, max_waiting=1))
    engine.start()
    with pytest.raises(RefusedError, match="need 73 tokens of the cache, which holds 64"):
        engine.submit(Request(prompt=[5] * 3, settings=settings(max_new_tokens=70)))
    with pytest.raises(QueueFullError):
        for _ in range(50):
            engine.submit(Request(prompt=[5], settings=settings(max_new_tokens=50)))
    engine.stop()


@pytest.mark.parametrize("token", [-1, 10**6])
def test_a_token_that_the_model_lacks_is_refused_and_the_engine_goes_on(models, token):
    engine = Engine(models["llama"], None, EngineLimits(cache_tokens=64))
    engine.start()
    with pytest.raises(RefusedError, match=f"token {token} is not in the vocabulary of the model"):
        engine.submit(Request(prompt=[5, token], settings=settings(max_new_tokens=2)))
    assert len(list(engine.submit(Request(prompt=[5], settings=settings(max_new_tokens=2))))) == 2
    engine.stop()


def test_a_dead_engine_says_so_to_every_open_request(models, monkeypatch):
    engine = Engine(models["llama"], None)
    monkeypatch.setattr(engine._runner, "run", lambda works: 1 / 0)
    engine.start()
    handle = engine.submit(Request(prompt=[5], settings=settings()))
    with pytest.raises(EngineDeadError, match="ZeroDivisionError"):
        list(handle)
    assert not engine.is_alive
    with pytest.raises(EngineDeadError):
        engine.submit(Request(prompt=[5], settings=settings()))


def test_who_has_the_last_token_finds_it_in_the_figures(models):
    engine = Engine(models["llama"], None)
    engine.start()
    for number in range(1, 20):
        handle = engine.submit(Request(prompt=[5, 6], settings=settings(max_new_tokens=3)))
        seen = []
        handle.notify(lambda handle=handle, seen=seen: seen.extend((event, engine.stats()) for event in handle.take()))
        while len(seen) < 3:
            time.sleep(0.001)
        for place, (event, stats) in enumerate(seen, start=1):
            counts = stats.counts
            assert counts.steps == counts.new_tokens == 3 * (number - 1) + place
            assert counts.answer_step_tokens == 2 * (number - 1) + place - 1
            assert (stats.running == 0) == (event.finish_reason is not None)
        assert stats.cache_usage == 0.0
    counts = engine.stats().counts
    assert counts.answer_step_seconds > 0 and counts.prompt_step_seconds > 0
    engine.stop()


def waiting(engine, count, **fields):
    """Put requests before an engine whose steps the test makes itself; return their handles."""
    handles = [Handle(2) for _ in range(count)]
    for handle in handles:
        request = Request(prompt=[5, 6], settings=settings(**fields))
        engine._scheduler.waiting.append(Sequence(request, handle, engine.config, None))
    return handles


def test_nobody_is_told_of_a_token_before_all_of_its_step_are_chosen(models):
    engine, told = Engine(models["llama"], None), []
    handles = waiting(engine, 5, max_new_tokens=4)
    for handle in handles:
        handle.notify(lambda: told.append([one.num_generated for one in handles]))
    for step in range(1, 5):
        engine._step()
        assert told == [[step] * 5] * 5
        told.clear()


def test_tokens_that_were_chosen_before_the_engine_died_are_told(models, monkeypatch):
    engine, accept = Engine(models["llama"], None), Sequence.accept
    first, _ = waiting(engine, 2, max_new_tokens=1)
    monkeypatch.setattr(Sequence, "accept", lambda self, *of: accept(self, *of) if self.handle is first else 1 / 0)
    rung = []
    first.notify(lambda: rung.append(first))
    with pytest.raises(ZeroDivisionError):
        engine._step()
    assert rung == [first] and [event.finish_reason for event in first.take()] == ["length"]


def test_no_step_begins_before_those_who_tell_of_the_last_one_agree(models):
    engine, order = Engine(models["llama"], None), []
    run = engine._runner.run
    engine._runner.run = lambda works: order.append("step") or run(works)
    engine.before_step = lambda: order.append("agreed")
    engine.start()
    assert len(list(engine.submit(Request(prompt=[5, 6], settings=settings(max_new_tokens=3))))) == 3
    engine.stop()
    assert order == ["agreed", "step"] * 3


class Impatient(StepRunner):
    """A runner that wants to hear something all the time."""

    patience_s = 0.005

    def __init__(self, inner):
        self._inner = inner
        self.rests = self.closed = 0

    def run(self, works):
        return self._inner.run(works)

    def rest(self):
        self.rests += 1

    def close(self):
        self.closed += 1


def test_a_runner_hears_of_rest_while_there_is_nothing_to_do_and_of_the_end(models):
    engine = Engine(models["llama"], None)
    engine._runner = runner = Impatient(engine._runner)
    engine.start()
    while runner.rests < 5:
        time.sleep(0.001)
    handle = engine.submit(Request(prompt=[5, 6], settings=settings(max_new_tokens=3)))
    assert len(list(handle)) == 3
    before = runner.rests
    while runner.rests < before + 2:
        time.sleep(0.001)
    engine.stop()
    assert runner.closed == 1


def test_an_engine_dies_where_its_runner_finds_nobody_while_it_rests(models):
    engine = Engine(models["llama"], None)
    engine._runner = runner = Impatient(engine._runner)
    runner.rest = lambda: 1 / 0
    engine.start()
    while engine.failure is None:
        time.sleep(0.001)
    assert isinstance(engine.failure, ZeroDivisionError) and not engine.is_alive


def test_penalties_and_biases_change_what_is_chosen(models):
    model = models["llama"]
    free, banned = (
        run(Engine(model, None), [Request(prompt=[5, 6], settings=settings(max_new_tokens=6, **more))])[0][0]
        for more in ({}, {"logit_bias": {}})
    )
    assert free == banned
    forbidden = {token: -100.0 for token in free}
    other = run(Engine(model, None), [Request(prompt=[5, 6], settings=settings(logit_bias=forbidden))])[0][0]
    assert not set(other) & set(free)
    wanted = run(Engine(model, None), [Request(prompt=[5, 6], settings=settings(logit_bias={77: 100.0}))])[0][0]
    assert set(wanted) == {77}
    spread = settings(logit_bias={77: 100.0}, frequency_penalty=2.0, presence_penalty=2.0, max_new_tokens=60)
    tokens = run(Engine(model, None), [Request(prompt=[5, 6], settings=spread)])[0][0]
    assert tokens[:20] == [77] * 20 and set(tokens[55:]) != {77}
