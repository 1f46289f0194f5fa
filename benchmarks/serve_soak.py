"""Ten minutes of everything that clients do, good and bad, and what the server's process holds meanwhile.

    python benchmarks/serve_soak.py --minutes 10 --picture demo-output/soak.png

Clients stream, ask for whole answers, leave in the middle, send what is refused, and ask for figures. Memory, open
files and threads of the server are read every few seconds; a line is fitted through the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
from serve_process import Connection, Server, serving, write_tiny_model
from serve_scorecard import HELLO

EVERY_S = 5.0


async def client(server: Server, seed: int, end: float, done: Counter[str]) -> None:
    """Ask one thing after the other, each drawn by chance."""
    draw, connection = random.Random(seed), Connection(server)
    while time.monotonic() < end:
        kind = draw.choice(("stream", "stream", "whole", "leave", "refused", "figures"))
        text = [{"role": "user", "content": " ".join(str(draw.randrange(100)) for _ in range(draw.randrange(1, 40)))}]
        body = {"messages": text, "max_tokens": draw.randrange(1, 60), "stream": kind in ("stream", "leave")}
        if kind == "refused":
            body |= draw.choice(({"temperature": -1}, {"messages": []}, {"model": "other"}, {"max_tokens": "many"}))
        if kind == "figures":
            status, headers = await connection.send("GET", "/metrics")
        else:
            status, headers = await connection.send("POST", "/v1/chat/completions", json.dumps(body).encode())
        if kind == "leave":
            await asyncio.sleep(draw.random() * 0.1)
            connection.close()
        else:
            async for _ in connection.parts(headers):
                pass
        done[f"{kind} {status}"] += 1
        await asyncio.sleep(draw.random() * 0.05)
    connection.close()


async def watch(server: Server, end: float) -> np.ndarray:
    """Return rows of seconds, resident MB, open files, threads."""
    process, rows, begin = psutil.Process(server.process.pid), [], time.monotonic()
    while time.monotonic() < end:
        await asyncio.sleep(EVERY_S)
        held = process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()
        rows.append((time.monotonic() - begin, *held))
    return np.array(rows)


async def soak(server: Server, minutes: float, clients: int) -> tuple[np.ndarray, Counter[str]]:
    """Run clients and the watch until the time is up."""
    end, done = time.monotonic() + 60 * minutes, Counter[str]()
    rows, *_ = await asyncio.gather(watch(server, end), *(client(server, seed, end, done) for seed in range(clients)))
    return rows, done


def draw_picture(rows: np.ndarray, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(8, 6))
    for axis, values, title in zip(axes, rows.T[1:], ("resident MB", "open files", "threads"), strict=True):
        axis.plot(rows[:, 0] / 60, values)
        axis.set_ylabel(title)
        axis.set_ylim(0, values.max() * 1.2)
    axes[-1].set_xlabel("minutes")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--picture", type=Path, help="PNG file of the course")
    arguments = parser.parse_args()
    with serving(write_tiny_model(Path(tempfile.mkdtemp())), "--max_running", "16") as server:
        rows, done = asyncio.run(soak(server, arguments.minutes, arguments.clients))
        time.sleep(1)
        left = server.figure("num_requests_running"), server.figure("kv_cache_usage_perc")
        answered = asyncio.run(Connection(server).ask("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2}))
        status = server.stop()
    half = rows[len(rows) // 2 :]
    slopes = [float(np.polyfit(half[:, 0] / 60, column, 1)[0]) for column in half.T[1:]]
    print(f"{sum(done.values())} requests in {rows[-1, 0] / 60:.1f} minutes: {dict(sorted(done.items()))}")
    for name, column, slope in zip(("resident MB", "open files", "threads"), rows.T[1:], slopes, strict=True):
        print(f"  {name}: {column[0]:.1f} at first, {column[-1]:.1f} at last, {slope:+.3f} a minute in the second half")
    print(f"  afterwards: {left[0]:.0f} running, {left[1]:.0%} of the cache in use, a request is answered with")
    print(f"  {answered[0]}, exit status {status}")
    if arguments.picture is not None:
        draw_picture(rows, arguments.picture)


if __name__ == "__main__":
    main()
