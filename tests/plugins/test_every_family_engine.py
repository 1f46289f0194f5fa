"""The engine and the server on every installed family: the tokens are those of one request alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import fill
from llm_run.core.engine import cache
from llm_run.core.engine.cache import ContiguousLayerCache
from llm_run.core.engine.decode import generate
from llm_run.core.engine.engine import Engine, EngineLimits
from llm_run.core.engine.request import Request
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.serve.access import ApiKeys
from llm_run.core.serve.app import create_app
from llm_run.core.serve.prompting import Prompting
from llm_run.core.serve.service import Service

SETTINGS = SamplingSettings(max_new_tokens=6)


def redrawn(model: CausalLM, generator: np.random.Generator) -> CausalLM:
    """Return the model with weights that make every token of a text matter.

    With those that training begins with, many models repeat the last token whatever came before it.
    """
    for parameter in model.parameters():
        if len(parameter.shape) > 1:
            fill(parameter, generator.normal(0, 0.3, parameter.shape).astype(np.float32))
    model.eval()
    return model


def talkative(variant: Any) -> tuple[CausalLM, list[list[int]]]:
    """A model whose next token depends on all before it, and prompts of which some begin alike."""
    generator = np.random.default_rng(1)
    model = redrawn(variant.family.build_model(variant.config), generator)
    shared = generator.integers(3, variant.config.vocab_size - 8, 9).tolist()
    prompts = [
        [*shared, *generator.integers(3, variant.config.vocab_size - 8, size).tolist()] for size in (3, 8, 1, 14)
    ]
    return model, prompts


def answered(model: CausalLM, prompts: list[list[int]], **limits: Any) -> list[list[int]]:
    """Answer all prompts together, out of a cache that is too small for all."""
    small = {"cache_tokens": 64, "block_tokens": 4, "step_tokens": 10, "max_running": 3}
    engine = Engine(model, None, EngineLimits(**(small | limits)))
    engine.start()
    handles = [engine.submit(Request(prompt=prompt, settings=SETTINGS)) for prompt in prompts]
    answers = [[event.token for event in handle] for handle in handles]
    engine.drain(10)
    engine.check()
    engine.stop()
    return answers


def test_answers_out_of_a_paged_cache_are_those_of_one_request_alone(variant: Any) -> None:
    model, prompts = talkative(variant)
    expected = [generate(model, [prompt], SETTINGS)[0].ids for prompt in prompts]
    assert answered(model, prompts) == expected


class RoundedLayerCache(ContiguousLayerCache):
    """The cache of one request, which rounds as the option says: each head of each token by its largest number."""

    def extend(self, k_BSKD: Any, v_BSKD: Any) -> Any:
        return super().extend(*(paddle.to_tensor(self.rounded(x.numpy())) for x in (k_BSKD, v_BSKD)))

    @staticmethod
    def rounded(x: np.ndarray) -> np.ndarray:
        scale = np.abs(x).max(axis=-1, keepdims=True) / np.float32(127)
        return np.asarray(np.rint(x / scale) * scale, dtype=np.float32)


def test_an_8_bit_cache_gives_one_answer_in_any_company(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = talkative(variant)
    exact = [generate(model, [prompt], SETTINGS)[0].ids for prompt in prompts]
    monkeypatch.setattr(cache, "ContiguousLayerCache", RoundedLayerCache)
    expected = [generate(model, [prompt], SETTINGS)[0].ids for prompt in prompts]
    found = answered(model, prompts, int8_cache=True)
    assert found == expected
    # These models amplify any change, so that much of an answer may differ; the first tokens are mostly the same.
    assert sum(one[0] == other[0] for one, other in zip(found, exact, strict=True)) >= 3


class Numbers:
    """A tokenizer whose tokens are written as numbers."""

    bos_id, eos_id, pad_id, stop_ids, special_tokens = None, 2, 0, (2,), ()

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str, **_: Any) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return "".join(f"{token} " for token in ids)

    def prompt(self, ids: list[int]) -> list[int]:
        return ids


@pytest.fixture
def served(family: Any) -> Any:
    config = family.card.sizes["tiny"]
    built = redrawn(family.build_model(config), np.random.default_rng(2))
    tokenizer: Any = Numbers(config.vocab_size)
    engine = Engine(built, tokenizer, EngineLimits(cache_tokens=256))
    engine.start()
    prompting = Prompting("tiny", tokenizer, None, (), max_length=64, vocab_size=config.vocab_size, adapters={})
    app = create_app(Service(engine, prompting, deadline_s=30), ApiKeys([]), (), max_body_bytes=10_000)
    yield built, app.test_client()
    engine.stop()


def test_a_server_answers_with_the_tokens_of_the_model(family: Any, served: Any) -> None:
    model, client = served
    prompt = [5, 9, 13, 21]
    expected = generate(model, [prompt], SamplingSettings(max_new_tokens=5))[0].ids
    assert len(set(expected)) > 2, "the answer could be anybody's"
    body = {"prompt": prompt, "max_tokens": 5, "temperature": 0}
    reply = client.post("/v1/completions", json=body)
    assert [int(word) for word in reply.json["choices"][0]["text"].split()] == expected
    streamed = client.post("/v1/completions", json=body | {"stream": True}).text
    assert streamed.endswith("data: [DONE]\n\n") and f"{expected[-1]} " in streamed
