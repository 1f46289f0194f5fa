"""Figures of what the server and the loaders let through: nothing, that is.

    apt-get install strace
    python benchmarks/security_scorecard.py

Hostile weight files and templates are those of the tests, which are run and counted here; the rest is asked of a server
of a tiny random model that runs under strace.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from serve_process import Connection, Server, serving, write_tiny_model
from sft_smollm2 import ROOT

KEY = "a-key-of-the-scorecard-0123456789"
SECRET = "zanzibar-violet-umbrella"
PUBLIC = ("/health", "/health/ready", "/metrics")
TESTS = {
    "hostile pickles through every loader: none runs": "tests/core/convert/test_hostile_pickles.py",
    "hostile templates: none reaches anything, bombs end early": "tests/core/data/test_sandbox.py",
    "keys: wrong ones alike, digests in constant time, hosts, content types": "tests/core/serve/test_access.py",
    "damaged and hostile safetensors headers": "tests/core/convert/test_safetensors_file.py",
    "names of shards that leave their folder": "tests/core/convert/test_shards.py",
    "no pickle, eval or yaml.load in the code": "tests/test_layering.py",
}


def run_tests(path: str) -> str:
    """Run a file of tests; return its last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600).stdout
    return printed.strip().splitlines()[-1]


def bombs() -> dict[str, bytes]:
    """Return requests that ask for too much, by what is too much in them."""
    message = [{"role": "user", "content": "3 and 4"}]
    deep = b'{"messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    asked = {
        "n of a million": {"messages": message, "n": 1_000_000},
        "a million stop strings": {"messages": message, "stop": ["x"] * 500_000},
        "a prompt of ten million characters": {"messages": [{"role": "user", "content": "x" * 3_900_000}]},
        "a million biases": {"messages": message, "logit_bias": {str(i): 1 for i in range(200_000)}},
        "a hundred thousand messages": {"messages": message * 60_000},
        "temperature as text": {"messages": message, "temperature": "hot"},
        "a number of 10,000 digits": {"messages": message, "max_tokens": 10**4000},
        "top_logprobs of a million": {"messages": message, "logprobs": True, "top_logprobs": 1_000_000},
        "an image of this machine": {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/"}}]}
            ]
        },
        "a template of its own": {"messages": message, "chat_template": "{{ ''.__class__ }}"},
    }
    raw = {name: json.dumps(body).encode() for name, body in asked.items()}
    not_a_number = b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}'
    return raw | {"ten thousand lists in each other": deep, "not a number": not_a_number, "100 MB": b" " * 100_000_000}


async def ask_too_much(server: Server) -> list[str]:
    """Send every bomb; return what came of them."""
    statuses, slowest, grown = [], 0.0, 0.0
    for name, body in bombs().items():
        connection = Connection(server, KEY)
        before, begin = server.program.memory_info().rss, time.monotonic()
        try:
            status, headers = await connection.send("POST", "/v1/chat/completions", body)
            async for _ in connection.parts(headers):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            status = 0  # the server hung up while the body was still coming
        connection.close()
        seconds = time.monotonic() - begin
        statuses.append((name, status))
        slowest = max(slowest, seconds if len(body) < 10_000_000 else 0.0)
        grown = max(grown, (server.program.memory_info().rss - before) / 1e6)
    passed = [f"{name}: {status}" for name, status in statuses if not (400 <= status < 500 or status == 0)]
    return [
        f"requests that ask for too much: {len(passed)} of {len(statuses)} taken {passed or ''}, the slowest refusal "
        f"{slowest:.2f} s, memory at most {grown:+.0f} MB"
    ]


async def walk_routes(server: Server) -> list[str]:
    """Ask every path without a key, and with a wrong one."""
    from llm_run.core.serve.access import ApiKeys
    from llm_run.core.serve.app import create_app
    from llm_run.core.serve.desk import Desk

    service: Any = SimpleNamespace(desk=Desk())  # the rest of it is for those who have a key
    app = create_app(service, ApiKeys([]), (), max_body_bytes=1)
    open_ones, tried = [], 0
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            for key in (None, "wrong", KEY.upper()):
                path = re.sub("<[^>]*>", "tiny", rule.rule)
                connection = Connection(server, key)
                status, headers = await connection.send(method, path, b"{}" if method == "POST" else b"")
                async for _ in connection.parts(headers):
                    pass
                connection.close()
                tried += 1
                if status != 401 and path not in PUBLIC:
                    open_ones.append(f"{method} {path}: {status}")
    return [f"routes without a right key: {len(open_ones)} of {tried} tries answered {open_ones or ''}"]


async def forge_logs(server: Server, log: Path) -> list[str]:
    """Send names with line ends and a secret; look for both in what the server printed."""
    before = len(log.read_text().splitlines())
    for text in ("a\n2026-01-01 ERROR forged", "\x1b[31mforged", "a\u2028forged", SECRET):
        body = {"messages": [{"role": "user", "content": text + SECRET}], "model": text, "max_tokens": 1}
        await Connection(server, KEY).ask("/v1/chat/completions", body)
        await Connection(server, KEY).ask("/v1/chat/completions", body | {"model": None})
    said = log.read_text()
    found = [word for word in ("forged", SECRET, KEY) if word in said]
    return [f"log: {len(said.splitlines()) - before} lines more after 8 hostile requests, of secrets found: {found}"]


def outside(trace: str) -> list[str]:
    """Return the addresses beyond this machine that were connected to."""
    addresses = re.findall(r'connect\(.*?inet_addr\("([^"]+)"\)', trace)
    addresses += re.findall(r'connect\(.*?inet_pton\(AF_INET6, "([^"]+)"', trace)
    return sorted({address for address in addresses if not address.startswith("127.") and address != "::1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ui", action="store_true", help="start the chat page too, and watch it as well")
    arguments = parser.parse_args()
    for name, path in TESTS.items():
        print(f"{name}: {run_tests(path)}", flush=True)
    folder = Path(tempfile.mkdtemp())
    model, keys, log, trace = write_tiny_model(folder / "model"), folder / "keys", folder / "log", folder / "trace"
    keys.write_text(KEY + "\n")
    options = ["--api_key_file", keys, *(["--ui"] if arguments.ui else [])]
    watch = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect", "-o", trace)
    with serving(model, *options, log=log, under=watch) as server:
        for check in (walk_routes(server), ask_too_much(server), forge_logs(server, log)):
            print("\n".join(asyncio.run(check)), flush=True)
        status, _ = asyncio.run(
            Connection(server, KEY).ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "3"}]})
        )
        print(f"afterwards a request with the key is answered with {status}")
        if arguments.ui:
            time.sleep(15)
    said = trace.read_text(errors="replace")
    print(f"connections beyond this machine: {outside(said)} ({said.count('connect(')} calls of connect seen)")


if __name__ == "__main__":
    main()
