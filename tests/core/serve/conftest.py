"""A tiny random llama behind the real server, on a port of this machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import paddle
import pytest
import waitress

from llm_run.core.data.chat import ChatTemplate
from llm_run.core.data.tokenizers import JsonTokenizer, TokenFacts
from llm_run.core.engine.engine import Engine, EngineLimits
from llm_run.core.registry.manager import load_family
from llm_run.core.serve.access import ApiKeys, allowed_hosts
from llm_run.core.serve.app import create_app
from llm_run.core.serve.prompting import Prompting
from llm_run.core.serve.service import Service

KEY = "a-key-for-the-tests-of-the-server"
TEMPLATE = ChatTemplate(
    jinja="{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE of 400 tokens."""
    import tokenizers

    directory = tmp_path_factory.mktemp("tokenizer")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    made.train_from_iterator([f"{a} and {b} make {a + b}." for a in range(40) for b in range(40)], trainer)
    made.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Any:
    """It begins a text with ``<s>``."""
    return JsonTokenizer(tokenizer_folder, facts=TokenFacts(bos="<s>", eos="</s>", prefix=("<s>",)))


@pytest.fixture(scope="session")
def model() -> Any:
    family = load_family("llama")
    paddle.seed(2)
    built = family.build_model(family.card.sizes["tiny"])
    for weight in built.parameters():
        if weight.ndim == 2:  # initial ones give nearly the same probability to every token
            weight.set_value(paddle.normal(0.0, 0.3, weight.shape))
    built.eval()
    return built


@pytest.fixture
def make_service(model: Any, tokenizer: Any) -> Iterator[Callable[..., Service]]:
    """Start an engine and a service: ``make_service(deadline_s=..., cache_tokens=..., ...)``."""
    made: list[Service] = []

    def make(*, deadline_s: float = 60.0, adapters: Any = None, spells: Any = tokenizer, **limits: Any) -> Service:
        engine = Engine(model, spells, EngineLimits(**({"cache_tokens": 4096} | limits)))
        engine.start()
        prompting = Prompting(
            "tiny", spells, TEMPLATE, (spells.eos_id,), max_length=128, vocab_size=model.config.vocab_size,
            adapters=adapters or {},
        )  # fmt: skip
        made.append(Service(engine, prompting, deadline_s=deadline_s))
        return made[-1]

    yield make
    for service in made:
        service.engine.stop()


@pytest.fixture
def listening() -> Any:
    """Return a context manager that serves: ``listening(service, keys)``."""
    return serving


@contextmanager
def serving(service: Service, keys: list[str]) -> Iterator[SimpleNamespace]:
    """Serve on a free port of this machine until the block ends."""
    app = create_app(service, ApiKeys(keys), allowed_hosts("127.0.0.1"), max_body_bytes=200_000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = waitress.create_server(
        app, host="127.0.0.1", port=port, threads=24, connection_limit=200, channel_request_lookahead=1, ident=None
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", app=app, service=service, port=port)
    finally:
        server.close()


@pytest.fixture
def served(make_service: Callable[..., Service]) -> Iterator[SimpleNamespace]:
    """A server without keys."""
    with serving(make_service(), []) as place:
        yield place


@pytest.fixture
def guarded(make_service: Callable[..., Service]) -> Iterator[SimpleNamespace]:
    """A server with a key."""
    with serving(make_service(), [KEY]) as place:
        yield place


HELLO = [{"role": "user", "content": "3 and 4"}]


def client(place: SimpleNamespace, key: str = "unused-key", **more: Any) -> openai.OpenAI:
    """The package's client of a server."""
    return openai.OpenAI(base_url=f"{place.url}/v1", api_key=key, max_retries=0, timeout=30, **more)


def chat(api: openai.OpenAI, **fields: Any) -> Any:
    """Ask for a short answer."""
    return api.chat.completions.create(**({"model": "tiny", "messages": HELLO, "max_tokens": 12} | fields))


@pytest.fixture
def api(served: SimpleNamespace) -> openai.OpenAI:
    """A client of the server without keys."""
    return client(served)
