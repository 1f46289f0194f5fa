"""Opens the port: waitress, with room for a thread a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from ..config.serving import ServeOptions

SPARE_THREADS = 16
"""Of the server, beside one for each stream: a probe of its health must not wait behind streams."""
CHANNEL_TIMEOUT_S = 300


def listen(app: Any, options: ServeOptions) -> Any:
    """Return a server of a WSGI application that has its port; ``run`` begins to answer.

    Raises:
        RefusedError: the port is taken.
    """
    from waitress.server import create_server

    threads = options.max_streams + SPARE_THREADS
    try:
        return create_server(
            app, host=options.host, port=options.port, threads=threads, connection_limit=2 * threads + 64,
            backlog=1024, channel_request_lookahead=1, channel_timeout=CHANNEL_TIMEOUT_S, ident=None,
            max_request_body_size=int(options.max_body_mb * 1e6), expose_tracebacks=False,
            clear_untrusted_proxy_headers=True,
        )  # fmt: skip
    except OSError as error:
        reason = f"cannot be listened on ({error.strerror or error})"
        raise RefusedError(Problem("--port", str(options.port), reason, "Give another one.")) from error
