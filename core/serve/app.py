"""The HTTP routes. Nothing here touches the model: requests are checked, handed to the service, and worded."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from .access import PUBLIC, ApiKeys, check_content_type, check_host
from .errors import ApiError
from .fields import Fields, parse_body, wrong
from .replies import model_card, new_id
from .schema import MAX_CHARACTERS, read_chat, read_text
from .seed_chat import answer_seed_chat

if TYPE_CHECKING:
    from .service import Service

_log = logging.getLogger("llm_run.serve")

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
EVENT_STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def create_app(service: Service, keys: ApiKeys, hosts: tuple[str, ...], *, max_body_bytes: int) -> Flask:
    """Build the application.

    Args:
        service: answers.
        keys: who may ask.
        hosts: names that the server answers to; empty for all.
        max_body_bytes: of a request.
    """
    app = Flask(__name__, static_folder=None)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    _guard(app, keys, hosts)
    _errors(app, service)
    _openai(app, service)
    _operations(app, service)
    app.wsgi_app = service.desk.before(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _guard(app: Flask, keys: ApiKeys, hosts: tuple[str, ...]) -> None:
    @app.before_request
    def check() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
        check_host(request.headers.get("Host"), hosts)
        if request.path not in PUBLIC:
            keys.check(request.headers.get("Authorization"))
        if request.method == "POST":
            check_content_type(request.headers.get("Content-Type"))

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _errors(app: Flask, service: Service) -> None:
    @app.errorhandler(ApiError)
    def refuse(error: ApiError) -> tuple[Any, int, dict[str, str]]:
        headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        if error.status in (400, 404, 413):
            headers["X-Should-Retry"] = "false"
        service.metrics.rejected.labels(reason=str(error.status)).inc()
        return error.body(), error.status, headers

    @app.errorhandler(HTTPException)
    def of_http(error: HTTPException) -> tuple[Any, int]:
        status = error.code or 500
        said = {404: "there is no such path", 405: "this method is not allowed here", 413: "the body is too large"}
        return ApiError(status, said.get(status, "the request is not valid")).body(), status

    @app.errorhandler(Exception)
    def fail(error: Exception) -> tuple[Any, int]:
        # What was asked is not logged, and what went wrong is not told: either may hold a secret.
        _log.error("request %s failed: %s", g.get("request_id", "?"), type(error).__name__, exc_info=error)
        return ApiError(500, "the server failed on this request").body(), 500


def _openai(app: Flask, service: Service) -> None:
    @app.post("/v1/chat/completions")
    def chat() -> Any:
        asked = read_chat(parse_body(request.get_data()))
        if asked.wanted.stream:
            return _stream(service.stream_chat(asked), service)
        return service.chat(asked, _is_gone())

    @app.post("/v1/completions")
    def complete() -> Any:
        asked = read_text(parse_body(request.get_data()))
        if asked.wanted.stream:
            return _stream(service.stream_text(asked), service)
        return service.text(asked, _is_gone())

    @app.post("/api/chat")
    def seed_chat() -> Any:
        lines = answer_seed_chat(service, parse_body(request.get_data()))
        return Response(lines, mimetype="application/x-ndjson", headers=EVENT_STREAM)

    @app.get("/v1/models")
    def models() -> Any:
        cards = [model_card(name, service.created, service.root_of(name)) for name in service.names]
        return {"object": "list", "data": cards}

    @app.get("/v1/models/<path:name>")
    def model(name: str) -> Any:
        service.check_model(name)
        return model_card(name, service.created, service.root_of(name))

    @app.post("/tokenize")
    def tokenize() -> Any:
        fields = Fields(parse_body(request.get_data()))
        text = fields.text("prompt", "", longest=MAX_CHARACTERS)
        tokens = service.tokenize(text, special=fields.flag("add_special_tokens", True))
        return {"tokens": tokens, "count": len(tokens), "max_model_len": service.max_length}

    @app.post("/detokenize")
    def detokenize() -> Any:
        tokens = parse_body(request.get_data()).get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(t, int) and not isinstance(t, bool) for t in tokens):
            raise wrong("tokens", "must be a list of token ids")
        return {"prompt": service.detokenize(tokens)}

    @app.get("/tokenizer_info")
    def tokenizer_info() -> Any:
        return service.tokenizer_info()


def _operations(app: Flask, service: Service) -> None:
    @app.get("/health")
    def health() -> Any:
        return ({"status": "ok"}, 200) if service.is_alive else ({"status": "the engine is dead"}, 503)

    @app.get("/health/ready")
    def ready() -> Any:
        return ({"status": "ready"}, 200) if service.is_ready else ({"status": "not ready"}, 503)

    @app.get("/metrics")
    def metrics() -> Any:
        return Response(service.figures(), mimetype="text/plain; version=0.0.4")

    @app.get("/version")
    def version() -> Any:
        return {"version": metadata.version("llm-run")}


def _stream(events: Iterator[bytes], service: Service) -> Response:
    """Return a stream whose first event is there already, so that a refusal still has a status code."""
    first = next(events)

    def whole() -> Iterator[bytes]:
        try:
            yield first
            yield from events
        finally:
            events.close()  # type: ignore[attr-defined]

    return Response(whole(), mimetype="text/event-stream", headers=EVENT_STREAM)


def _is_gone() -> Callable[[], bool]:
    """Return a function that says whether the client has left, as far as the server can tell."""
    asked = request.environ.get("waitress.client_disconnected")
    return asked if callable(asked) else (lambda: False)
