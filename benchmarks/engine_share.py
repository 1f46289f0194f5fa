"""How much of decoding is Python: the time between the C++ calls of an engine's steps, and the time within them.

python benchmarks/engine_share.py [--shape 270m] [--kinds float32 int8 int4] [--tokens 200] [--requests 1]

Greedy answers of random llamas, without a tokenizer; every figure is the median over the steps of all answers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from typing import Any

from decode import OURS, Ours
from decode_work import SHAPES
from turns import Side, serve


def measure(shape: str, kind: str, tokens: int, requests: int) -> str:
    """Return a line for one kind of matrices."""
    from llm_run.core.engine.engine import Engine, EngineLimits
    from llm_run.core.engine.request import Request
    from llm_run.core.engine.settings import SamplingSettings
    from llm_run.core.ops import decoder_step

    model = Ours(shape, kind).model
    calls: list[tuple[float, float]] = []
    find = decoder_step.kernel

    def timed(name: str) -> Any:
        function = find(name)

        def call(*pointers: int) -> None:
            start = time.perf_counter()
            function(*pointers)
            calls.append((start, time.perf_counter()))

        return call if name == "decoder_step" else function

    decoder_step.kernel = timed
    engine = Engine(model, None, EngineLimits(cache_tokens=4096))
    engine.start()
    settings = SamplingSettings(max_new_tokens=tokens)
    handles = [engine.submit(Request(prompt=list(range(3, 67)), settings=settings)) for _ in range(requests)]
    for handle in handles:
        assert len(list(handle)) == tokens
    engine.stop()
    steady = calls[8:-8]  # prompts and last answers aside
    inside_ms = 1e3 * statistics.median(end - start for start, end in steady)
    outside_ms = 1e3 * statistics.median(after[0] - before[1] for before, after in pairwise(steady))
    share = outside_ms / (inside_ms + outside_ms)
    return (
        f"{shape} {kind}, {requests} at once: C++ {inside_ms:.2f} ms a step, Python {outside_ms:.2f} ms ({share:.1%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="270m")
    parser.add_argument("--kinds", nargs="+", choices=OURS, default=["float32", "int8", "int4"])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        serve(lambda: measure(arguments.shape, arguments.kind, arguments.tokens, arguments.requests))
        return
    shared = ["--shape", arguments.shape, "--tokens", str(arguments.tokens), "--requests", str(arguments.requests)]
    for kind in arguments.kinds:
        side = Side(["--kind", kind, *shared], is_paddle=True)
        print(side.work()[1], flush=True)
        side.stop()


if __name__ == "__main__":
    main()
