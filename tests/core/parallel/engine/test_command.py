"""The command itself: two processes answer a file, and serve until they are told to leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.convert.save import save_model_directory
from llm_run.core.launch.environment import MARK
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.rendezvous import free_port
from llm_run.core.registry.manager import load_family

from .answers import build

LIMIT = 120
"""Seconds after which processes are ended."""
SHARED = ("--tensor_parallel_degree", "2", "--nproc_per_node", "2", "--dist_timeout", "60")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that talks, with a tokenizer of one token a byte."""
    import tokenizers

    folder = tmp_path_factory.mktemp("served") / "model"
    model = build("llama", Mesh())
    save_model_directory(model, load_family("llama"), model.config, None, folder)
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        ["a"], tokenizers.trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False)
    )
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Without what the test runner or an outer job has set, and with a folder of its own for scratch files."""
    ours = ("OMP_", "MALLOC_", "PADDLE_", "SLURM_", MARK)
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {"TMPDIR": str(tmp_path)}


def command(directory: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "llm_run.core", "--model_name_or_path", str(directory), *words]


def answers_of(directory: Path, tmp_path: Path, environment: dict[str, str], *words: str) -> tuple[list[Any], str]:
    """Return the lines of the output file and what the command said."""
    texts = ("abc", "the sea", "a", "one, two, three", "abd")
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"src": text}) + "\n" for text in texts))
    output = tmp_path / f"said-{len(words)}.jsonl"
    more = ["--task", "generate", "--data_file", str(tmp_path / "asked.jsonl"), "--output_file", str(output)]
    done = subprocess.run(
        command(directory, *more, "--decode_strategy", "greedy_search", "--max_new_tokens", "6", *words),
        env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in output.read_text().splitlines()], done.stderr


def test_two_processes_answer_a_file_as_one_does(directory: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    alone, _ = answers_of(directory, tmp_path, environment)
    shared, said = answers_of(directory, tmp_path, environment, *SHARED)
    assert shared == alone and len(alone) == 5
    assert "decoding: plain, each process its part" in said
    assert said.count("answers written: 5, of 30 tokens in all") == 1
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "a folder of logs stays"


@pytest.fixture
def server(directory: Path, tmp_path: Path, environment: dict[str, str]) -> Iterator[tuple[Any, str]]:
    port = free_port()
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen(
            command(directory, "--task", "serve", "--port", str(port), *SHARED), env=environment, stderr=log
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}", tmp_path / "server.log")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_until_ready(process: Any, url: str, log: Path) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health/ready", timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text())


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{url}/v1/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=LIMIT)


def test_two_processes_serve_and_leave_when_open_answers_have_ended(server: tuple[Any, str], tmp_path: Path) -> None:
    process, url = server
    body = {"prompt": "abc", "max_tokens": 12, "temperature": 0}
    whole = json.loads(post(url, body).read())["choices"][0]["text"]
    with post(url, body | {"stream": True}) as stream:
        first = stream.readline()
        process.send_signal(signal.SIGTERM)
        events = [first, *stream]
    pieces = [json.loads(line[6:])["choices"][0]["text"] for line in events if line.startswith(b"data: {")]
    assert "".join(pieces) == whole and events[-2] == b"data: [DONE]\n"
    assert process.wait(LIMIT) == 0, (tmp_path / "server.log").read_text()
    assert "leaving: no new requests" in (tmp_path / "server.log").read_text()
