"""Speed of an exported graph against the same model in memory: prompts, and decoding one by one and in a batch.

    python benchmarks/static_export.py [--size smollm2-135m] [--layers 30] [--quant WINT8]

The model in memory runs in the engine, which answers by one C++ call a step where it covers the model, and operator
by operator besides; weights are random. Prints tokens per second of CPU with one thread, which a busy machine does not
change much, the size of the files, and the peak memory of each process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

PROMPT, ANSWER, ROWS, ROUNDS = 64, 16, (1, 4), 1


def shape(size: str, layers: int | None) -> Any:
    """Return the configuration of a llama, with so many layers where it is said."""
    from llm_run.core.registry.manager import load_family

    config = load_family("llama").card.sizes[size]
    return config if layers is None else replace(config, num_layers=layers)


def build(config: Any, quant: str | None) -> Any:
    """Return the random model."""
    import paddle

    from llm_run.core.quant.grid import GridSpec
    from llm_run.core.quant.quantize import quantize_weights
    from llm_run.core.registry.manager import load_family

    family = load_family("llama")
    paddle.seed(0)
    model = family.build_model(config)
    model.eval()
    if quant is not None:
        groups = family.quantizable_layers(config)
        assert groups is not None
        quantize_weights(model, groups, GridSpec(8 if quant == "WINT8" else 4, -1 if quant == "WINT8" else 64))
    return model


def measure(answer: Callable[[list[list[int]], int], None], vocab_size: int) -> dict[str, float]:
    """Return tokens per second of CPU, the best of the rounds: of prompts alone, and of what follows them."""
    found: dict[str, float] = {}
    random = np.random.default_rng(0)
    for rows in ROWS:
        prompts = random.integers(3, vocab_size, [rows, PROMPT]).tolist()
        answer(prompts, 2)
        short, whole = [], []
        for _ in range(ROUNDS):
            for tokens, times in ((1, short), (1 + ANSWER, whole)):
                start = time.process_time()
                answer(prompts, tokens)
                times.append(time.process_time() - start)
        found[f"prompt, {rows} at once"] = rows * PROMPT / min(short)
        found[f"answer, {rows} at once"] = rows * ANSWER / (min(whole) - min(short))
    return found


def by_batch(model: Any) -> Callable[[list[list[int]], int], None]:
    """Return a function that answers in one left-padded batch."""
    from llm_run.core.engine.decode import generate
    from llm_run.core.engine.settings import SamplingSettings

    return lambda prompts, tokens: generate(model, prompts, SamplingSettings(max_new_tokens=tokens)) and None


def by_engine(model: Any) -> Callable[[list[list[int]], int], None]:
    """Return a function that answers through the engine."""
    from llm_run.core.engine.offline import answer_in_order, running_engine
    from llm_run.core.engine.request import Request
    from llm_run.core.engine.settings import SamplingSettings

    draws = np.random.default_rng(1)

    def answer(prompts: list[list[int]], tokens: int) -> None:
        # Another first token each time: no prompt is found in the cache.
        prompts = [[int(draws.integers(3, 500)), *prompt[1:]] for prompt in prompts]
        requests = [Request(prompt=prompt, settings=SamplingSettings(max_new_tokens=tokens)) for prompt in prompts]
        with running_engine(model, None, [PROMPT + tokens] * len(prompts)) as engine:
            for _ in answer_in_order(engine, requests):
                pass

    return answer


def side(name: str, config: Any, quant: str | None, folder: Path) -> None:
    """Measure one side in this process and print its figures as JSON."""
    from llm_run.core.launch.resident import peak_resident_bytes

    if name == "graph":
        from llm_run.core.engine.static.exported import ExportedModel
        from llm_run.core.engine.static.graph import INPUTS
        from llm_run.core.engine.static.manifest import Manifest

        inputs = tuple(each for each in INPUTS if each != "prompt_mask")
        answer = by_batch(ExportedModel(Manifest(folder, "model", inputs, 0, {}), config))
    else:
        model = build(config, quant)
        answer = (by_engine if name == "engine" else by_batch)(model)
    figures = measure(answer, config.vocab_size)
    print(json.dumps(figures | {"peak GB": peak_resident_bytes() / 1e9}))


def export(config: Any, quant: str | None, folder: Path) -> None:
    """Write the graph and print how far it is from the model."""
    from llm_run.core.engine.static.graph import write_graph
    from llm_run.core.engine.static.manifest import Manifest
    from llm_run.core.engine.static.task import compare

    model = build(config, quant)
    start = time.perf_counter()
    inputs = write_graph(model, folder / "model")
    seconds = time.perf_counter() - start
    difference = compare(model, Manifest(folder, "model", inputs, 0, {}))
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in sorted(folder.iterdir()))
    print(f"written in {seconds:.1f} s: {sizes}; largest logit difference {difference:.1e} of the largest logit")


def main() -> None:
    from llm_run.core.launch.environment import lacking

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="smollm2-135m")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--quant", choices=["WINT8", "WINT4"])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "export":
        return export(shape(options.size, options.layers), options.quant, options.folder)
    if options.part:
        return side(options.part, shape(options.size, options.layers), options.quant, options.folder)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | lacking(threads=1, processes=1, training=False)
        again = [sys.executable, __file__, *sys.argv[1:], "--folder", folder, "--part"]
        for name in ("export", "graph", "engine", "operators"):
            said = subprocess.run([*again, name], check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            if name == "export":
                print(said, end="", flush=True)
                continue
            figures = json.loads(said.splitlines()[-1])
            print(f"{name}: " + ", ".join(f"{what} {value:.1f}" for what, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
