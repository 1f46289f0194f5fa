"""A server of a tiny random model as a process of its own, and clients that cost little beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sft_smollm2 import BIN

from llm_run.core.parallel.rendezvous import free_port

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_tiny_model(folder: Path) -> Path:
    """Write a random llama of 0.2M parameters with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    made.train_from_iterator(["3 and 4 make 7"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=1024, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass
class Server:
    """A running ``llm-run --task serve``."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    is_under: bool = False

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def figure(self, name: str) -> float:
        """Return a value of ``/metrics``, summed over its labels."""
        import urllib.request

        text = urllib.request.urlopen(f"{self.url}/metrics", timeout=10).read().decode()
        lines = [line for line in text.splitlines() if line.startswith((f"llm_run:{name} ", f"llm_run:{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def stop(self, seconds: float = 120) -> int:
        """Ask the server to leave; return its exit status."""
        self.program.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    @property
    def program(self) -> psutil.Process:
        """The server itself, which is a child where it runs under another command."""
        process = psutil.Process(self.process.pid)
        return process.children()[0] if self.is_under else process


@contextmanager
def serving(
    model: str | Path, *options: object, log: Path | None = None, under: Sequence[object] = (),
    program: Sequence[object] = (BIN / "llm-run",),
) -> Iterator[Server]:  # fmt: skip
    """Serve a model until the block ends.

    Args:
        model: its folder.
        options: of the server.
        log: gets what the server prints.
        under: a command that runs the program.
        program: serves.
    """
    port = free_port()
    command = [*under, *program, "--task", "serve", "--model_name_or_path", model, "--port", port, *options]
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)
    server = Server(process, "127.0.0.1", port, is_under=bool(under))
    try:
        await_ready(server)
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def await_ready(server: Server, path: str = "/health/ready", seconds: float = 120) -> None:
    """Wait until a path is answered."""
    import urllib.request

    end = time.monotonic() + seconds
    while time.monotonic() < end and server.process.poll() is None:
        try:
            urllib.request.urlopen(f"{server.url}{path}", timeout=5).read()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"the server does not answer; its exit status is {server.process.poll()}")


class Connection:
    """One HTTP/1.1 connection; far cheaper than a client library, so that 128 fit beside the server on two cores."""

    def __init__(self, server: Server, key: str | None = None) -> None:
        self._server, self._key = server, key
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str]]:
        """Send a request; return status and headers."""
        if self._reader is None or self._reader.at_eof():
            self.close()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._server.host, self._server.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._server.host}:{self._server.port}\r\n"
        if self._key is not None:
            head += f"Authorization: Bearer {self._key}\r\n"
        if method == "POST":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        await self._writer.drain()
        assert self._reader is not None
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        return int(lines[0].split(" ")[1]), headers

    async def parts(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        """Yield the pieces of a body as they come."""
        assert self._reader is not None
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await self._reader.readline()).split(b";")[0] or b"0", 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readline()
        elif "content-length" in headers:
            yield await self._reader.readexactly(int(headers["content-length"]))
        else:
            while piece := await self._reader.read(65536):
                yield piece
        if headers.get("connection") == "close" or self._reader.at_eof():
            self.close()

    async def ask(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Send a request; return status and whole body."""
        status, headers = await self.send("POST", path, json.dumps(body).encode())
        return status, b"".join([piece async for piece in self.parts(headers)])

    def close(self) -> None:
        """Leave at once."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
