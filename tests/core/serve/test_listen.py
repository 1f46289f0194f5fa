from __future__ import annotations

import socket

import pytest

from llm_run.core.config.serving import ServeOptions
from llm_run.core.errors import RefusedError
from llm_run.core.parallel.rendezvous import free_port
from llm_run.core.serve.listen import SPARE_THREADS, listen


def test_a_port_that_is_taken_is_refused_by_name():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RefusedError, match=f"--port: {port} cannot be listened on"):
            listen(lambda environ, start: [], ServeOptions(port=port))


def test_each_stream_has_a_thread_and_a_probe_beside_them_as_well():
    server = listen(lambda environ, start: [], ServeOptions(port=free_port(), max_streams=5, max_body_mb=2))
    try:
        assert len(server.task_dispatcher.threads) == 5 + SPARE_THREADS
        assert server.adj.max_request_body_size == 2_000_000
        assert server.adj.channel_request_lookahead == 1, "or nobody sees that a client has left"
    finally:
        server.close()
