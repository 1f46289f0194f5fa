"""What activations in 8 bits (``--activations_int8``) do to models of integer weights: perplexity and greedy answers.

    python benchmarks/int8_activations.py --text book.jsonl --models ./wint8 ./gptq

Each model is a quantized directory, of ``--task ptq`` or ``gptq``. All is computed by the engine: perplexity is that of
rows of tokens as prompts. Answers are equal where no token differs.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from int8_cache import answers

from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.convert.tokenizer import load_tokenizer
from llm_run.core.engine.offline import running_engine
from llm_run.core.engine.request import Request
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.quant.start import round_activations
from llm_run.core.registry.manager import find_family


def perplexity(model: Any, rows: list[list[int]]) -> float:
    """Return the perplexity of rows of ids, each read from the beginning."""
    settings = SamplingSettings(max_new_tokens=1)
    requests = [Request(prompt=row, settings=settings, prompt_logprobs=True) for row in rows]
    logprobs: list[float] = []
    with running_engine(model, None, [len(row) + 1 for row in rows]) as engine:
        for request in requests:
            handle = engine.submit(request)
            assert len(list(handle)) == 1
            logprobs += [told.logprob for told in handle.prompt_logprobs if told is not None]
    return math.exp(-float(np.mean(logprobs)))


def compare(path: Path, text: str, num_rows: int, length: int, num_answers: int) -> str:
    """Return a line for one model."""
    fields = read_fields(path)
    family = find_family(fields)
    config = family.read_config(fields)
    model = load_model(family, config, path, keep_integers=True)
    model.eval()
    tokenizer = load_tokenizer(family, config, path)
    wanted = num_rows * length
    rows = np.array(tokenizer.encode(text[: 8 * wanted])[:wanted]).reshape(num_rows, -1).tolist()
    prompts = [row[:size] for row in rows for size in (40, 80, 120)][:num_answers]
    figures = []
    for is_rounded in (False, True):
        if is_rounded:
            round_activations(model)
        found = answers(model, prompts, 32, int8_cache=False)
        figures.append((perplexity(model, rows), found))
    (before, first), (after, second) = figures
    equal = sum(one == other for one, other in zip(first, second, strict=True))
    change = f"{before:.4f} -> {after:.4f} ({100 * (after / before - 1):+.3f} %)"
    return (
        f"{path.name}: perplexity of {wanted} tokens {change}; "
        f"{equal} of {len(first)} greedy answers of 32 tokens equal"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--text", type=Path, required=True, help="JSONL with text")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--answers", type=int, default=12)
    arguments = parser.parse_args()
    text = " ".join(json.loads(line)["text"] for line in arguments.text.open(encoding="utf-8"))
    for path in arguments.models:
        print(compare(path, text, arguments.rows, arguments.length, arguments.answers), flush=True)


if __name__ == "__main__":
    main()
