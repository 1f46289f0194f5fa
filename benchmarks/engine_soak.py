"""Requests that come and go at random under load: memory must stay flat, and no request may be stuck.

    python benchmarks/engine_soak.py [--minutes 10] [--clients 8] [--family llama]

Clients send requests, read all of an answer, some of it or nothing, and cancel. At the end every request has ended,
every block is free, and the memory after the first fifth of the time has grown by less than the limit.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llm_run.core.engine.engine import Engine
    from llm_run.core.registry.facts import ModelConfig

GROWTH_LIMIT_MB = 16.0
STUCK_S = 60.0


class Client(threading.Thread):
    """Sends requests until it is told to stop."""

    def __init__(self, engine: Engine, config: ModelConfig, number: int, ends: threading.Event) -> None:
        super().__init__(daemon=True)
        self.sent = self.cancelled = self.refused = 0
        self.failure: Exception | None = None
        self._engine, self._config, self._ends = engine, config, ends
        self._random = np.random.default_rng(number)

    def run(self) -> None:
        """Send one request after the other."""
        try:
            while not self._ends.is_set():
                self._ask()
        except Exception as error:
            self.failure = error

    def _ask(self) -> None:
        from llm_run.core.engine.failures import QueueFullError
        from llm_run.core.engine.request import Request
        from llm_run.core.engine.settings import SamplingSettings

        draw = self._random
        prompt = draw.integers(3, self._config.vocab_size - 8, int(draw.integers(1, 120))).tolist()
        settings = SamplingSettings(max_new_tokens=int(draw.integers(1, 60)), strategy="sampling", top_k=20)
        try:
            handle = self._engine.submit(Request(prompt=prompt, settings=settings, number=self.sent))
        except QueueFullError:
            self.refused += 1
            time.sleep(0.01)
            return
        self.sent += 1
        patience = int(draw.integers(0, 90))  # tokens that are read before it is cancelled
        if patience:
            for count, _ in enumerate(handle, start=1):
                if count >= patience:
                    break
        if not handle.is_finished:
            self.cancelled += 1
            handle.cancel()


def resident_mb() -> float:
    """Return the memory of this process in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000


def main() -> int:
    """Print what happened; fail where something is stuck, lost, or grows."""
    import paddle

    from llm_run.core.engine.engine import Engine, EngineLimits
    from llm_run.core.registry.manager import load_family

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--family", default="llama")
    arguments = parser.parse_args()
    family = load_family(arguments.family)
    paddle.seed(0)
    model = family.build_model(family.card.sizes["tiny"])
    model.eval()
    engine = Engine(model, None, EngineLimits(cache_tokens=512, step_tokens=128, max_running=6, max_waiting=1))
    engine.start()
    ends = threading.Event()
    clients = [Client(engine, model.config, number, ends) for number in range(arguments.clients)]
    for client in clients:
        client.start()
    seconds = arguments.minutes * 60
    time.sleep(seconds / 5)
    before = resident_mb()
    time.sleep(seconds * 4 / 5)
    after = resident_mb()
    ends.set()
    for client in clients:
        client.join(STUCK_S)
    drained = engine.drain(STUCK_S)
    stuck = sum(client.is_alive() for client in clients) + (not drained)
    stats = engine.stats()
    engine.check()
    engine.stop()
    failures = [client.failure for client in clients if client.failure is not None]
    sent, cancelled, refused = (
        sum(counts) for counts in zip(*((c.sent, c.cancelled, c.refused) for c in clients), strict=True)
    )
    print(
        f"{arguments.family}: {arguments.minutes:g} min, sent {sent}, cancelled {cancelled}, refused {refused}, "
        f"preempted {stats.preemptions}, stuck {stuck}, failures {len(failures)}, "
        f"blocks still owned {stats.cache_usage:.0%}, "
        f"resident {before:.1f} MB after a fifth of the time, {after:.1f} MB at the end"
    )
    for failure in failures:
        print(f"  {type(failure).__name__}: {failure}")
    is_good = not stuck and not failures and stats.cache_usage == 0 and after - before < GROWTH_LIMIT_MB
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
