"""What is asked of a model that two ranks share, and of the same model in one process."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from llm_run.core.adapters.files import Adapter, put_adapter
from llm_run.core.adapters.lora import merge_in_place
from llm_run.core.adapters.names import LoraTensors
from llm_run.core.adapters.prefix import apply_prefix
from llm_run.core.adapters.prefix_files import put_prefix, save_prefix
from llm_run.core.adapters.prefix_settings import PrefixSettings
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.adapters.switched import put_switched
from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import fill
from llm_run.core.convert.logical import parameters
from llm_run.core.engine.decode import generate
from llm_run.core.engine.engine import Engine, EngineLimits
from llm_run.core.engine.request import Request
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.tensor.arrays import cut
from llm_run.core.parallel.tensor.build import build_random
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.manager import load_family

STD = 0.3
"""Of the weights. With those that training begins with, many models repeat their last token, whatever came before."""
LONG = 30
"""Tokens of an answer that is given up."""
LENGTHS = (3, 8, 1, 14, 5)
SMALL = EngineLimits(cache_tokens=36, block_tokens=4, step_tokens=12, max_running=3)
"""So little that prompts are cut, and sequences give up their blocks."""
GREEDY = SamplingSettings(max_new_tokens=8)
LORA = LoraSettings(rank=3, alpha=6)
PECULIAR = ("adapters", "merged", "prefix", "int8", "beams", "chance")
"""Asked of one family only."""


def numbers(name: str, shape: Any) -> np.ndarray:
    """Return the values of a logical parameter."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(0, STD, shape).astype(np.float32)


def build(name: str, mesh: Mesh, *, uneven: bool = False) -> CausalLM:
    """Build this rank's part of a family's smallest model, with weights that make every token of a text matter."""
    family = load_family(name)
    config = replace(family.card.sizes["tiny"], num_layers=2)
    if uneven:
        config = replace(config, vocab_size=config.vocab_size - 1)
    model = build_random(family, config, mesh)
    parts = model_parts(model)
    for each, parameter in parameters(model).items():
        if len(parts[each].shape) > 1:
            fill(parameter, cut(numbers(each, parts[each].shape), parts[each]))
    model.eval()
    return model


def prompts(config: Any) -> list[list[int]]:
    """Return prompts that begin alike."""
    random = np.random.default_rng(1)
    first, last = 3, config.vocab_size - 8
    shared = random.integers(first, last, 9).tolist()
    return [[*shared, *random.integers(first, last, length).tolist()] for length in LENGTHS]


def requests(model: CausalLM, kind: str) -> list[Request]:
    """Return what a kind of test asks."""
    settings = GREEDY
    if kind == "chance":
        settings = replace(GREEDY, strategy="sampling", temperature=2.0, seed=5)
    asked = [
        Request(prompt=prompt, settings=settings, number=number)
        for number, prompt in enumerate(prompts(model.config))
    ]  # fmt: skip
    if kind == "adapters":
        asked = [replace(request, adapter=(None, "one", "two")[place % 3]) for place, request in enumerate(asked)]
    return asked


def change(model: CausalLM, kind: str, folder: Path) -> None:
    """Add to a model what a kind of test needs; a tuned prefix is read from a folder."""
    if kind == "adapters":
        put_switched(model, {name: adapter(model, name) for name in ("one", "two")})
    elif kind == "merged":
        merge_in_place(put_adapter(model, adapter(model, "one")))
    elif kind == "prefix":
        put_prefix(model, folder)


def write_prefix(folder: Path) -> None:
    """Write a prefix that is large enough to matter."""
    model = apply_prefix(build("llama", Mesh()), PrefixSettings(num_tokens=5))
    assert model.prefix is not None
    for name, parameter in model.prefix.named_parameters():
        fill(parameter, 3 * numbers(name, parameter.shape))
    save_prefix(model, folder, base="tiny")


def adapter(model: CausalLM, name: str) -> Adapter:
    """Return an adapter of matrices that are split by columns, by rows, and by tokens."""
    layers = {}
    for layer in ("blocks.0.attention.q_proj", "blocks.1.attention.o_proj", "blocks.1.feed_forward.down_proj"):
        rows, columns = model_parts(model)[f"{layer}.weight"].shape
        a, b = numbers(f"{name} A {layer}", [rows, LORA.rank]), numbers(f"{name} B {layer}", [LORA.rank, columns])
        layers[layer] = LoraTensors(a, b, None)
    return Adapter(LORA, layers)


@contextmanager
def engine_of(model: CausalLM, **limits: Any) -> Iterator[Engine]:
    """Run an engine with little room."""
    engine = Engine(model, None, replace(SMALL, **limits))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def answered(model: CausalLM, kind: str) -> dict[str, Any]:
    """Ask all together, and something more that is cancelled on its way."""
    with engine_of(model, int8_cache=kind == "int8") as engine:
        asked = requests(model, kind)
        handles = [engine.submit(request) for request in asked[:3]]
        given_up = engine.submit(Request(prompt=[5, 6, 7], settings=replace(GREEDY, max_new_tokens=LONG)))
        handles += [engine.submit(request) for request in asked[3:]]
        next(iter(given_up))
        given_up.cancel()
        answers = [[event.token for event in handle] for handle in handles]
        assert engine.drain(60)
        engine.check()
        stats = engine.stats()
    return {
        "answers": answers, "cancelled after": given_up.num_generated, "preempted": stats.preemptions,
        "found": stats.prefix_hits,
    }  # fmt: skip


def one_by_one(model: CausalLM, kind: str) -> list[list[int]]:
    """Return the answers that each request gets alone, without an engine."""
    asked = requests(model, kind)
    with paddle.no_grad():
        return [
            generate(model, [request.prompt], request.settings, numbers=[request.number])[0].ids for request in asked
        ]


def searched(model: CausalLM) -> list[list[int]]:
    """Return what beam search finds, all prompts as one batch."""
    settings = SamplingSettings(strategy="beam_search", num_beams=3, max_new_tokens=6)
    return [completion.ids for completion in generate(model, prompts(model.config), settings)]
