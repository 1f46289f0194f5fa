"""Figures of the server's reliability: streams, fuzzing, clients that leave, overload, a dead engine, leaving in order.

    python benchmarks/serve_scorecard.py

The server is the command ``llm-run --task serve`` with a tiny random model, in a process of its own; the clients share
the machine with it. Everything is bounded and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from serve_process import Connection, Server, serving, write_tiny_model
from serve_streams import measure, read_stream

HELLO = [{"role": "user", "content": "3 and 4"}]
LONG = {"messages": HELLO, "max_tokens": 900, "ignore_eos": True}
NAMES = (
    "messages", "prompt", "model", "max_tokens", "temperature", "top_p", "n", "stop", "stream", "seed", "logprobs",
    "logit_bias", "top_logprobs", "echo", "tools", "response_format", "context", "history", "tokens",
)  # fmt: skip
PATHS = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/api/chat", "/v1/models", "/nowhere")


def strange(draw: random.Random, depth: int = 0) -> Any:
    """Return a value that nobody asked for."""
    kinds = [None, True, -1, 0, 10**30, 1.5, float("1e308"), "", "x" * draw.randrange(2000), "\ud83d", "<|im_end|>"]
    if depth < 3 and draw.random() < 0.4:
        return [strange(draw, depth + 1) for _ in range(draw.randrange(4))]
    if depth < 3 and draw.random() < 0.3:
        keys = ("role", "content", "a", "type")
        return {draw.choice(keys): strange(draw, depth + 1) for _ in range(draw.randrange(4))}
    return draw.choice(kinds)


async def fuzz(server: Server, count: int) -> str:
    """Send random bodies to every path, over four connections, and count what comes back."""
    statuses: Counter[int] = Counter()
    slowest = 0.0

    async def client(seed: int) -> None:
        nonlocal slowest
        draw, connection = random.Random(seed), Connection(server)
        for _ in range(count // 4):
            good = {"messages": HELLO, "prompt": "1", "max_tokens": 2, "context": "1", "max_length": 2, "tokens": [5]}
            body = good | {draw.choice(NAMES): strange(draw) for _ in range(draw.randrange(1, 4))}
            data = json.dumps(body).encode() if draw.random() < 0.9 else draw.randbytes(draw.randrange(200))
            begin = time.monotonic()
            status, headers = await connection.send("POST", draw.choice(PATHS), data)
            async for _ in connection.parts(headers):
                pass
            statuses[status] += 1
            slowest = max(slowest, time.monotonic() - begin)

    await asyncio.gather(*(client(seed) for seed in range(4)))
    bad = sum(times for status, times in statuses.items() if status >= 500)
    total = sum(statuses.values())
    return f"fuzz: {total} requests, {bad} with 5xx, {dict(sorted(statuses.items()))}, slowest {slowest:.2f} s"


async def leaving(server: Server, tries: int = 20) -> str:
    """Leave while a stream comes, while an answer is computed as a whole, and while a request waits for room."""
    waits: dict[str, list[float]] = {"streaming": [], "whole answer": [], "queued": []}
    for kind, measured in waits.items():
        for _ in range(tries):
            ahead = []
            if kind == "queued":
                ahead = [Connection(server) for _ in range(2)]
                for one in ahead:
                    await one.send("POST", "/v1/chat/completions", json.dumps(LONG | {"stream": True}).encode())
            connection = Connection(server)
            body = json.dumps(LONG | {"stream": kind == "streaming"}).encode()
            asking = asyncio.create_task(connection.send("POST", "/v1/chat/completions", body))
            name = "num_requests_waiting" if kind == "queued" else "num_requests_running"
            await _until(server, name, 1)
            begin = time.monotonic()
            connection.close()
            await _until(server, name, 0)
            measured.append(time.monotonic() - begin)
            asking.cancel()
            for one in ahead:
                one.close()
            await _until(server, "num_requests_running", 0)
    worst = ", ".join(f"{kind} {max(measured) * 1000:.0f} ms" for kind, measured in waits.items())
    return f"leaving clients: their room is free after at most {worst} ({tries} tries each)"


async def _until(server: Server, name: str, value: float, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while await asyncio.to_thread(server.figure, name) != value:
        if time.monotonic() > end:
            raise SystemExit(f"{name} does not become {value:.0f}")
        await asyncio.sleep(0.002)


async def overload(server: Server, seconds: float, clients: int) -> str:
    """Ask for more than fits: what is taken in must end, the rest must be told at once."""
    statuses: Counter[int] = Counter()
    refusals: list[float] = []
    end = time.monotonic() + seconds

    async def client() -> None:
        connection = Connection(server)
        while time.monotonic() < end:
            begin = time.monotonic()
            body = {"prompt": "1", "max_tokens": 60, "ignore_eos": True}
            status, whole = await connection.ask("/v1/completions", body)
            cut = status == 200 and json.loads(whole)["usage"]["completion_tokens"] != 60
            statuses[599 if cut else status] += 1
            if status == 429:
                refusals.append(time.monotonic() - begin)
                await asyncio.sleep(0.05)

    await asyncio.gather(*(client() for _ in range(clients)))
    slow = statistics.quantiles(refusals, n=100)[98] * 1000
    return (
        f"overload by {clients} clients for {seconds:.0f} s: {dict(sorted(statuses.items()))}, refused within "
        f"{statistics.median(refusals) * 1000:.0f} ms (median), {slow:.0f} ms (p99)"
    )


async def drain(server: Server, count: int = 32) -> str:
    """Send SIGTERM while streams are open."""
    body = {"messages": HELLO, "max_tokens": 300, "ignore_eos": True}
    whole = asyncio.gather(*(read_stream(server, body) for _ in range(count)))
    await _until(server, "num_requests_running", count)
    begin = time.monotonic()
    status = await asyncio.to_thread(server.stop)
    texts = [stream.text for stream in await whole]
    ended = sum(b'"finish_reason": "length"' in text and b"[DONE]" in text for text in texts)
    seconds = time.monotonic() - begin
    return f"SIGTERM: {ended} of {count} open streams ended whole, exit status {status} in {seconds:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="fuzzed requests")
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the overload")
    arguments = parser.parse_args()
    folder = write_tiny_model(Path(tempfile.mkdtemp()))
    for line in measure(arguments.streams, 3, folder):
        print(line, flush=True)
    with serving(folder, "--max_running", "128", "--cache_tokens", "65536") as server:
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        print(asyncio.run(fuzz(server, arguments.requests)), flush=True)
        grown = (process.memory_info().rss - before) / 1e6
        print(
            f"  resident memory {grown:+.1f} MB; blocks in use {server.figure('kv_cache_usage_perc'):.0f}", flush=True
        )
        print(asyncio.run(drain(server)), flush=True)
    with serving(folder, "--max_running", "2", "--max_queue", "4") as server:
        print(asyncio.run(leaving(server)), flush=True)
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        print(asyncio.run(overload(server, arguments.seconds, 24)), flush=True)
        print(f"  resident memory {(process.memory_info().rss - before) / 1e6:+.1f} MB", flush=True)


if __name__ == "__main__":
    main()
