"""How much of decoding is Python: the wall time of an engine's steps, and the part of it that the C++ step takes.

python benchmarks/engine_share.py [--shape 270m] [--kinds float32 int8 int4] [--tokens 200] [--requests 1]

Greedy answers of random llamas, without a tokenizer; every figure is the median over the steps of all answers.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from typing import Any

from decode import OURS, Ours
from decode_work import SHAPES


def measure(shape: str, kind: str, tokens: int, requests: int) -> str:
    """Return a line for one kind of matrices."""
    from llm_run.core.engine.engine import Engine, EngineLimits
    from llm_run.core.engine.request import Request
    from llm_run.core.engine.settings import SamplingSettings
    from llm_run.core.ops import decoder_step

    model = Ours(shape, kind).model
    native_s: list[float] = []
    find = decoder_step.kernel

    def timed(name: str) -> Any:
        function = find(name)

        def call(*pointers: int) -> None:
            start = time.perf_counter()
            function(*pointers)
            native_s.append(time.perf_counter() - start)

        return call

    decoder_step.kernel = timed
    engine = Engine(model, None, EngineLimits(cache_tokens=4096))
    engine.start()
    settings = SamplingSettings(max_new_tokens=tokens)
    native_s.clear()
    handles = [engine.submit(Request(prompt=list(range(3, 67)), settings=settings)) for _ in range(requests)]
    stamps = [[time.perf_counter() for _ in handle] for handle in handles[:1]][0]
    engine.stop()
    step_s = statistics.median(after - before for before, after in zip(stamps[8:], stamps[9:], strict=False))
    native = statistics.median(native_s[8:])
    share = f"{1e3 * (step_s - native):.2f} ms of Python, {1 - native / step_s:.1%}"
    return f"{shape} {kind}, {requests} at once: a step {1e3 * step_s:.2f} ms, C++ {1e3 * native:.2f} ms; {share}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="270m")
    parser.add_argument("--kinds", nargs="+", choices=OURS, default=["float32", "int8", "int4"])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(measure(arguments.shape, arguments.kind, arguments.tokens, arguments.requests), flush=True)
        return
    for kind in arguments.kinds:  # each in a process of its own, as its threads are
        subprocess.run([sys.executable, *sys.argv, "--kind", kind], check=True)


if __name__ == "__main__":
    main()
