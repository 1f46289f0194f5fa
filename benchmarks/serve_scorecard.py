"""Figures of the server's reliability on a tiny random model: fuzzing, streams, overload, clients that leave.

    python benchmarks/serve_scorecard.py --requests 10000

Server and clients share this machine; everything is bounded and ends by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import paddle
import psutil
import tokenizers
from waitress.server import create_server

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.tokenizers import JsonTokenizer, TokenFacts
from llm_run.core.engine.engine import Engine, EngineLimits
from llm_run.core.registry.manager import load_family
from llm_run.core.serve.access import ApiKeys, allowed_hosts
from llm_run.core.serve.app import create_app
from llm_run.core.serve.prompting import Prompting
from llm_run.core.serve.service import Service

HELLO = [{"role": "user", "content": "3 and 4"}]
TEMPLATE = ChatTemplate(jinja="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")


def start(**limits: Any) -> tuple[Service, str, Any]:
    """Serve a tiny llama; return the service, its address, and the server."""
    folder = Path(tempfile.mkdtemp())
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    made.train_from_iterator(["3 and 4 make 7"], trainer)
    made.save(str(folder / "tokenizer.json"))
    tokenizer = JsonTokenizer(folder, facts=TokenFacts(bos="<s>", eos="</s>", prefix=("<s>",)))
    family = load_family("llama")
    model = family.build_model(family.card.sizes["tiny"])
    model.eval()
    engine = Engine(model, tokenizer, EngineLimits(**({"cache_tokens": 32768, "max_running": 128} | limits)))
    engine.start()
    prompting = Prompting("tiny", tokenizer, TEMPLATE, (), max_length=120, vocab_size=512, adapters={})
    service = Service(engine, prompting, deadline_s=120)
    app = create_app(service, ApiKeys([]), allowed_hosts("127.0.0.1"), max_body_bytes=1_000_000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server(
        app, host="127.0.0.1", port=port, threads=160, connection_limit=1000, backlog=1024, channel_request_lookahead=1
    )
    threading.Thread(target=server.run, daemon=True).start()
    return service, f"http://127.0.0.1:{port}", server


def strange(draw: random.Random, depth: int = 0) -> Any:
    """Return a value that nobody asked for."""
    kinds = [None, True, -1, 0, 10**30, 1.5, float("1e308"), "", "x" * draw.randrange(2000), "\ud83d", "<|im_end|>"]
    if depth < 3 and draw.random() < 0.4:
        return [strange(draw, depth + 1) for _ in range(draw.randrange(4))]
    if depth < 3 and draw.random() < 0.3:
        return {
            draw.choice(["role", "content", "a", "type"]): strange(draw, depth + 1) for _ in range(draw.randrange(4))
        }
    return draw.choice(kinds)


def fuzz(url: str, count: int) -> str:
    """Send random bodies to every path and count what comes back."""
    draw, statuses, slowest = random.Random(0), {}, 0.0
    names = [
        *(
            "messages",
            "prompt",
            "model",
            "max_tokens",
            "temperature",
            "top_p",
            "n",
            "stop",
            "stream",
            "seed",
            "logprobs",
        ),
        *("logit_bias", "top_logprobs", "echo", "tools", "response_format", "context", "history", "tokens"),
    ]
    paths = [
        "/v1/chat/completions",
        "/v1/completions",
        "/tokenize",
        "/detokenize",
        "/api/chat",
        "/v1/models",
        "/nowhere",
    ]
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(count):
            good = {"messages": HELLO, "prompt": "1", "max_tokens": 2, "context": "1", "max_length": 2, "tokens": [5]}
            body = good | {draw.choice(names): strange(draw) for _ in range(draw.randrange(1, 4))}
            data = json.dumps(body).encode() if draw.random() < 0.9 else draw.randbytes(draw.randrange(200))
            begin = time.monotonic()
            reply = client.post(draw.choice(paths), content=data, headers={"Content-Type": "application/json"})
            slowest = max(slowest, time.monotonic() - begin)
            statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
    bad = sum(times for status, times in statuses.items() if status >= 500)
    return f"fuzz: {count} requests, {bad} with 5xx, statuses {dict(sorted(statuses.items()))}, slowest {slowest:.2f} s"


def streams(url: str, count: int) -> str:
    """Open many streams at once; measure the time to the first token and a probe of the server's health beside them."""
    firsts: list[float] = []
    wholes: list[float] = []
    lock = threading.Lock()

    def ask(number: int) -> None:
        body = {"messages": HELLO, "max_tokens": 40, "stream": True, "ignore_eos": True, "seed": number}
        begin, first = time.monotonic(), 0.0
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as reply:
            for line in reply.iter_lines():
                if '"content": "' in line and '"content": ""' not in line and not first:
                    first = time.monotonic() - begin
        with lock:
            firsts.append(first)
            wholes.append(time.monotonic() - begin)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    probes = []
    while any(thread.is_alive() for thread in threads):
        begin = time.monotonic()
        httpx.get(f"{url}/health", timeout=30)
        probes.append(time.monotonic() - begin)
        time.sleep(0.05)
    p99 = statistics.quantiles(firsts, n=100)[98]
    return (
        f"streams: {len(firsts)} of {count} whole, first token p50 {statistics.median(firsts):.2f} s, p99 {p99:.2f} s, "
        f"last token p99 {statistics.quantiles(wholes, n=100)[98]:.2f} s, worst /health {max(probes) * 1000:.0f} ms"
    )


def leaving(service: Service, url: str) -> str:
    """Leave in the middle of streams; measure how long their blocks stay taken."""
    waits = []
    for _ in range(20):
        body = {"messages": HELLO, "max_tokens": 100, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as reply:
            next(reply.iter_lines())
        begin = time.monotonic()
        while service.engine.stats().cache_usage and time.monotonic() - begin < 5:
            time.sleep(0.005)
        waits.append(time.monotonic() - begin)
    return f"leaving clients: blocks free after {max(waits) * 1000:.0f} ms at most ({len(waits)} tries)"


def overload(url: str, seconds: float) -> str:
    """Ask for more than fits for a while: what is taken in must end, the rest must be told at once."""
    statuses: dict[int, int] = {}
    refusals: list[float] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def ask() -> None:
        while time.monotonic() < end:
            begin = time.monotonic()
            body = {"prompt": "1", "max_tokens": 60, "ignore_eos": True}
            status = httpx.post(f"{url}/v1/completions", json=body, timeout=120).status_code
            with lock:
                statuses[status] = statuses.get(status, 0) + 1
                if status == 429:
                    refusals.append(time.monotonic() - begin)
            time.sleep(0.02 if status == 429 else 0)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    median = statistics.median(refusals) * 1000 if refusals else 0.0
    return f"overload: statuses {dict(sorted(statuses.items()))}, refused within {median:.0f} ms (median)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the overload")
    arguments = parser.parse_args()
    paddle.seed(1)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    service, url, server = start()
    process = psutil.Process()
    httpx.get(f"{url}/health")
    print(streams(url, arguments.streams), flush=True)
    before = process.memory_info().rss
    print(fuzz(url, arguments.requests), flush=True)
    print(
        f"  engine alive: {service.is_alive}; resident memory {(process.memory_info().rss - before) / 1e6:+.1f} MB",
        flush=True,
    )
    print(leaving(service, url), flush=True)
    service.engine.drain(10)
    service.engine.check()
    print("blocks: none lost", flush=True)
    service.engine.stop()
    server.close()
    service, url, server = start(max_running=2, max_waiting=4)
    before = process.memory_info().rss
    print(overload(url, arguments.seconds), flush=True)
    print(f"  resident memory {(process.memory_info().rss - before) / 1e6:+.1f} MB", flush=True)
    service.engine.stop()
    server.close()


if __name__ == "__main__":
    main()
