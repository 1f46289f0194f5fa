"""Many streams at once: how long the first token takes, how long each token is on its way, and a probe of the health.

    python benchmarks/serve_streams.py --streams 128 --runs 3

The server and the one process of all clients share the machine. Tokens carry the time at which they were chosen
(``serve_timed.py``). Beside it stands the floor: the same waitress streaming the same bytes at the same pace without
Flask, engine and model (``serve_floor.py``), read by the same clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from serve_process import Connection, Server, await_ready, serving, write_tiny_model

from llm_run.core.parallel.rendezvous import free_port

TIMED = (sys.executable, Path(__file__).with_name("serve_timed.py"))
FLOOR = (sys.executable, Path(__file__).with_name("serve_floor.py"))
CHOSEN = re.compile(rb'"content": "([0-9]+[.][0-9]+) "')
TOKENS = 40


@dataclass(frozen=True, slots=True)
class Stream:
    """What one client saw; seconds from its sending on, and those that each token was on its way."""

    first: float
    last: float
    lags: list[float]
    text: bytes


@dataclass(frozen=True, slots=True)
class Wave:
    """What all clients saw, and what it cost."""

    streams: list[Stream]
    probes: list[float]
    """Seconds of each answer of ``/health``."""
    server_share: float
    """Of one core, by the server's process."""
    client_share: float

    def line(self) -> str:
        """Return it in words."""
        whole = sum(b"[DONE]" in stream.text for stream in self.streams)
        firsts, lasts = ([getattr(stream, name) for stream in self.streams] for name in ("first", "last"))
        lags = [1000 * lag for stream in self.streams for lag in stream.lags]
        return (
            f"{whole} of {len(self.streams)} whole; first token p50 {np.median(firsts):.2f} s, "
            f"p99 {np.percentile(firsts, 99):.2f} s; on its way p50 {np.median(lags):.0f} ms, "
            f"p99 {np.percentile(lags, 99):.0f} ms; last token p99 {np.percentile(lasts, 99):.2f} s; worst /health "
            f"{max(self.probes) * 1000:.0f} ms; cores: server {self.server_share:.2f}, clients {self.client_share:.2f}"
        )

    def pace(self) -> float:
        """Return the seconds between tokens of a stream."""
        return float(np.median([(stream.last - stream.first) / (len(stream.lags) - 1) for stream in self.streams]))


async def read_stream(server: Server, body: dict[str, Any]) -> Stream:
    """Read a stream to its end."""
    connection, begin, first, lags, pieces = Connection(server), time.monotonic(), 0.0, [], []
    status, headers = await connection.send(
        "POST", "/v1/chat/completions", json.dumps(body | {"stream": True}).encode()
    )
    if status != 200:
        raise SystemExit(f"a stream was answered with {status}")
    async for piece in connection.parts(headers):
        now = time.monotonic()
        lags += [now - float(chosen) for chosen in CHOSEN.findall(piece)]
        if lags and not first:
            first = now - begin
        pieces.append(piece)
    connection.close()
    return Stream(first, time.monotonic() - begin, lags, b"".join(pieces))


async def wave(server: Server, count: int) -> Wave:
    """Open many streams at once, and probe the server's health beside them."""
    message = [{"role": "user", "content": "3 and 4"}]
    body = {"messages": message, "max_tokens": TOKENS, "ignore_eos": True}
    processes = (server.program, psutil.Process())
    begin, before = time.monotonic(), [_seconds(process) for process in processes]
    whole = asyncio.gather(*(read_stream(server, body | {"seed": seed}) for seed in range(count)))
    probes, probe = [], Connection(server)
    while not whole.done():
        sent = time.monotonic()
        _, headers = await probe.send("GET", "/health")
        async for _ in probe.parts(headers):
            pass
        probes.append(time.monotonic() - sent)
        await asyncio.sleep(0.02)
    streams, seconds = await whole, time.monotonic() - begin
    used = [(_seconds(process) - earlier) / seconds for process, earlier in zip(processes, before, strict=True)]
    return Wave(streams, probes, *used)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def floor(every_s: float) -> Iterator[Server]:
    """Serve the same bytes at this pace without a model, until the block ends."""
    port = free_port()
    command = [*FLOOR, "--port", port, "--every", every_s, "--tokens", TOKENS]
    process = subprocess.Popen([str(part) for part in command])
    try:
        server = Server(process, "127.0.0.1", port)
        await_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait()


def measure(count: int, runs: int, folder: Path) -> Iterator[str]:
    """Yield a line for each wave, the floor's last."""
    with serving(folder, "--max_running", count, "--cache_tokens", 512 * count, program=TIMED) as server:
        asyncio.run(wave(server, 8))
        for run in range(runs):
            found = asyncio.run(wave(server, count))
            yield f"{count} streams, run {run + 1}: {found.line()}"
    pace = found.pace()
    with floor(pace) as server:
        asyncio.run(wave(server, 8))
        for run in range(runs):
            found = asyncio.run(wave(server, count))
            yield f"the floor, a token each {1000 * pace:.0f} ms, run {run + 1}: {found.line()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, one minute's load before: {os.getloadavg()[0]:.1f}")
    for line in measure(arguments.streams, arguments.runs, write_tiny_model(Path(tempfile.mkdtemp()))):
        print(line, flush=True)


if __name__ == "__main__":
    main()
