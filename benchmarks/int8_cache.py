"""What keys and values in 8 bits (``--cachekv_int8``) do to a model: perplexity, greedy answers, memory of a token.

    python benchmarks/int8_cache.py --model ./model --text book.jsonl

Perplexity is that of rows of tokens whose attention reads the cache. Answers are compared with those out of a cache of
floats, up to the first token that differs.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.convert.tokenizer import load_tokenizer
from llm_run.core.engine.int8_cache import Int8Store
from llm_run.core.engine.offline import answer_in_order, running_engine
from llm_run.core.engine.paged_cache import PagedStore, StepCache
from llm_run.core.engine.request import Request
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.ops.mask import AttentionMask
from llm_run.core.ops.ragged import RaggedItem, RaggedMask
from llm_run.core.registry.manager import find_family


def perplexity(model: Any, rows: np.ndarray, store: Any) -> float:
    """Return the perplexity of rows of ids, each read from the beginning."""
    length, losses = rows.shape[1], []
    at = np.arange(length)
    for row in rows:
        mask = RaggedMask((RaggedItem(length, length, AttentionMask()),))
        positions = model.config.positions(row[None], np.ones((1, length), np.int32), None)
        with paddle.no_grad():
            cache = StepCache(store, at, at, 0)
            hidden = model(paddle.to_tensor(row[None]), paddle.to_tensor(positions), mask, cache)
            losses.append(float(F.cross_entropy(model.head(hidden[0, :-1]), paddle.to_tensor(row[1:]))))
    return math.exp(sum(losses) / len(losses))


def answers(model: Any, prompts: list[list[int]], count: int, *, int8_cache: bool) -> list[list[int]]:
    """Return the greedy answers."""
    settings = SamplingSettings(max_new_tokens=count, min_new_tokens=count)
    requests = [Request(prompt=prompt, settings=settings) for prompt in prompts]
    lengths = [len(prompt) + count for prompt in prompts]
    with running_engine(model, None, lengths, int8_cache=int8_cache) as engine:
        return [completion.ids for completion, _ in answer_in_order(engine, requests)]


def agreement(one: list[int], other: list[int]) -> int:
    """Return how many tokens agree before the first that differs."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="JSONL with text")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--answers", type=int, default=16, help="greedy answers, of 32 tokens each")
    arguments = parser.parse_args()
    fields = read_fields(arguments.model)
    family = find_family(fields)
    config = family.read_config(fields)
    model = load_model(family, config, arguments.model, keep_integers=True)
    model.eval()
    tokenizer = load_tokenizer(family, config, arguments.model)
    text = " ".join(json.loads(line)["text"] for line in arguments.text.open(encoding="utf-8"))
    wanted = arguments.rows * arguments.length
    rows = np.array(tokenizer.encode(text[: 8 * wanted])[:wanted]).reshape(arguments.rows, -1)
    int8 = Int8Store(config, arguments.length)
    before, after = (perplexity(model, rows, store) for store in (PagedStore(config, arguments.length), int8))
    print(f"perplexity of {rows.size} tokens: {before:.4f} -> {after:.4f} ({100 * (after / before - 1):+.3f} %)")
    in_floats = 4 * 2 * config.num_layers * config.num_kv_heads * config.head_dim
    print(f"bytes of a token: {in_floats} in float32, {int8.bytes_per_token()} in 8 bits")
    prompts = [row[:length].tolist() for row in rows for length in (40, 80, 120)][: arguments.answers]
    pairs = list(zip(*(answers(model, prompts, 32, int8_cache=asked) for asked in (False, True)), strict=True))
    agree = [agreement(one, other) for one, other in pairs]
    print(f"greedy answers of 32 tokens: {agree.count(32)} of {len(agree)} equal; {np.mean(agree):.1f} tokens agree")


if __name__ == "__main__":
    main()
