"""The engine and the server on every installed family: the tokens are those of one request alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from llm_run.core.convert.load import fill
from llm_run.core.engine.decode import generate
from llm_run.core.engine.engine import Engine, EngineLimits
from llm_run.core.engine.request import Request
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.serve.access import ApiKeys
from llm_run.core.serve.app import create_app
from llm_run.core.serve.prompting import Prompting
from llm_run.core.serve.service import Service


def test_answers_out_of_a_paged_cache_are_those_of_one_request_alone(variant: Any) -> None:
    model = variant.family.build_model(variant.config)
    model.eval()
    generator = np.random.default_rng(1)
    shared = generator.integers(3, variant.config.vocab_size - 8, 9).tolist()
    prompts = [
        [*shared, *generator.integers(3, variant.config.vocab_size - 8, size).tolist()] for size in (3, 8, 1, 14)
    ]
    for parameter in model.parameters():
        # With the weights that training begins with, many models repeat the last token whatever came before it.
        if len(parameter.shape) > 1:
            fill(parameter, generator.normal(0, 0.3, parameter.shape).astype(np.float32))
    settings = SamplingSettings(max_new_tokens=6)
    expected = [generate(model, [prompt], settings)[0].ids for prompt in prompts]
    engine = Engine(model, None, EngineLimits(cache_tokens=64, block_tokens=4, step_tokens=10, max_running=3))
    engine.start()
    handles = [engine.submit(Request(prompt=prompt, settings=settings)) for prompt in prompts]
    answers = [[event.token for event in handle] for handle in handles]
    engine.drain(10)
    engine.check()
    engine.stop()
    assert answers == expected


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
    import paddle

    config = family.card.sizes["tiny"]
    paddle.seed(11)
    built = family.build_model(config)
    built.eval()
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
    body = {"prompt": prompt, "max_tokens": 5, "temperature": 0}
    reply = client.post("/v1/completions", json=body)
    assert [int(word) for word in reply.json["choices"][0]["text"].split()] == expected
    streamed = client.post("/v1/completions", json=body | {"stream": True}).text
    assert streamed.endswith("data: [DONE]\n\n") and f"{expected[-1]} " in streamed
