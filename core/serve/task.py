"""``--task serve``: load a model, start the engine, listen, and leave in order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.failures import EngineDeadError
from ..errors import LlmRunError, RefusedError
from ..parallel.join import mesh_of
from .access import ApiKeys, allowed_hosts
from .checks import check_serving, read_keys
from .listen import listen
from .memory import keep_loaded

if TYPE_CHECKING:
    from flask import Flask

    from ..parallel.mesh import Mesh
    from ..run import Run
    from .service import Service

_log = logging.getLogger("llm_run.serve")

LAST_WORDS_S = 1.0
"""Time for clients to be told that the engine has died, before its process ends."""


def run(run: Run) -> int:
    """Serve until SIGTERM or SIGINT, then let open answers end.

    Raises:
        RefusedError: an option is wrong, a package is missing, or the port is taken.
    """
    problems = check_serving(run.config.serve)
    if problems:
        raise RefusedError(*problems)
    _need_packages(run.config.serve.ui)
    with mesh_of(run.config.launch) as mesh:
        if not mesh.is_main:
            return _help(run, mesh)
        service = build_service(run, mesh)
        try:
            _serve(run, service, is_alone=mesh.is_alone)
        finally:
            service.engine.stop()
    return 0


def _help(run: Run, mesh: Mesh) -> int:
    """Compute this rank's part of what rank 0 answers; a signal is rank 0's to obey, which lets open answers end."""
    from ..engine.ranks import follow
    from ..engine.setup import load_text_model

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    model = load_text_model(run, mesh)
    _add_adapters(run, model)
    follow(model)
    return 0


def _serve(run: Run, service: Service, *, is_alone: bool) -> None:
    """Listen until a signal comes, then let open answers end.

    Raises:
        LlmRunError: the engine has died, where other processes belong to it: they are to end as well.
    """
    server = listen(build_app(run, service), run.config.serve)
    keep_loaded()
    options = run.config.serve
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    _log.info("serving %s at http://%s:%d/v1", ", ".join(service.names), options.host, options.port)
    with _page(run):
        while not stop.wait(0.2):
            if service.is_alive:
                continue
            if not is_alone:
                time.sleep(LAST_WORDS_S)
                raise service.engine.failure or EngineDeadError("the engine has ended")
            _log.error("the engine is dead: /health says 503; waiting to be restarted")
            stop.wait()
    _leave(service, options.drain_timeout)
    server.close()


def build_service(run: Run, mesh: Mesh | None = None) -> Service:
    """Load model, tokenizer and adapters, and start the engine.

    Args:
        run: of the task.
        mesh: of several tensor-parallel ranks, of which this is the first; the others must ``follow``.
    """
    from ..engine.engine import Engine, EngineLimits
    from ..engine.setup import load_text_format, load_text_model
    from ..engine.speculation import make_drafter
    from .prompting import Prompting
    from .service import Service

    options = run.config.serve
    text = load_text_format(run)
    model = load_text_model(run, mesh)
    adapters = _add_adapters(run, model)
    limits = EngineLimits(
        cache_tokens=options.cache_tokens, step_tokens=options.step_tokens, max_running=options.max_running,
        max_waiting=options.max_queue, int8_cache=run.config.decoding.cachekv_int8,
    )  # fmt: skip
    drafter = make_drafter(run.config.decoding, model.config)
    engine = Engine(model, text.tokenizer, limits, drafter=drafter)
    engine.start()
    source = run.config.model.model_name_or_path
    name = options.served_model_name or (Path(source).stem if source else f"{run.config.family}-random")
    prompting = Prompting(
        name, text.tokenizer, text.template, text.settings.stop_ids,
        max_length=min(run.model_config.max_positions, options.cache_tokens), vocab_size=run.model_config.vocab_size,
        adapters=adapters,
    )  # fmt: skip
    return Service(engine, prompting, deadline_s=options.request_timeout)


def build_app(run: Run, service: Service) -> Flask:
    """Return the WSGI application of a service, for any server."""
    from .app import create_app

    options = run.config.serve
    keys = ApiKeys(read_keys(options))
    return create_app(service, keys, allowed_hosts(options.host), max_body_bytes=int(options.max_body_mb * 1e6))


def _add_adapters(run: Run, model: Any) -> dict[str, str]:
    """Load the adapters that are served beside the model; return the engine's names by those of clients."""
    named = dict(text.split("=", 1) for text in run.config.serve.lora_modules)
    if not named:
        return {}
    from ..adapters.files import open_adapter
    from ..adapters.switched import put_switched

    adapters = {name: open_adapter(run.family, run.model_config, Path(path)) for name, path in named.items()}
    put_switched(model, adapters)
    return {name: name for name in adapters}


def _leave(service: Service, drain_s: float) -> None:
    """Let open answers end."""
    if not service.is_alive:
        return
    _log.info("leaving: no new requests; open answers have %.0f s", drain_s)
    if not service.engine.drain(drain_s):
        _log.warning("some answers are cut off: they were told so")


@contextmanager
def _page(run: Run) -> Iterator[None]:
    """Run the chat page beside the server."""
    options = run.config.serve
    if not options.ui:
        yield
        return
    from .page import KEY_VARIABLE

    keys = read_keys(options)
    environment = os.environ | ({KEY_VARIABLE: keys[0]} if keys else {})
    command = [sys.executable, "-m", "llm_run.core.serve.page", "--api", f"http://127.0.0.1:{options.port}",
               "--port", str(options.ui_port), "--title", options.title]  # fmt: skip
    process = subprocess.Popen(command, env=environment)
    _log.info("chat page at http://127.0.0.1:%d", options.ui_port)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _need_packages(with_page: bool) -> None:
    import importlib.util

    needed = dict.fromkeys(("flask", "waitress", "prometheus_client"), "serve")
    if with_page:
        needed["gradio"] = "ui"
    missing = {extra for package, extra in needed.items() if importlib.util.find_spec(package) is None}
    if missing:
        extras = ",".join(sorted(missing))
        raise LlmRunError(f"--task serve needs packages that are not installed. Run: pip install 'llm-run[{extras}]'")
