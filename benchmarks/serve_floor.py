"""The server's own waitress, with its settings, streaming the same bytes without Flask, engine and model.

    python benchmarks/serve_floor.py --port 8010 --every 0.015 --tokens 40

What this reaches on a machine, no server of this kind can be quicker than: started by ``serve_streams.py``.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from llm_run.core.config.serving import ServeOptions
from llm_run.core.serve.listen import listen
from llm_run.core.serve.replies import Envelope, chat_delta


class Floor:
    """A WSGI application: every stream gets a token whenever the clock ticks."""

    def __init__(self, every_s: float, tokens: int) -> None:
        self._every_s, self._tokens = every_s, tokens
        self._new: SimpleQueue[SimpleQueue[str | None]] = SimpleQueue()
        threading.Thread(target=self._tick, daemon=True).start()

    def __call__(self, environ: dict[str, object], start: Callable[..., object]) -> Iterator[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            start("200 OK", [("Content-Type", "application/json"), ("Content-Length", "2")])
            return iter([b"{}"])
        environ["wsgi.input"].read()  # type: ignore[attr-defined]
        mine: SimpleQueue[str | None] = SimpleQueue()
        self._new.put(mine)
        start("200 OK", [("Content-Type", "text/event-stream")])
        return self._events(mine)

    def _events(self, mine: SimpleQueue[str | None]) -> Iterator[bytes]:
        envelope = Envelope.chat("tiny")
        yield b": in\n\n"
        while (text := mine.get()) is not None:
            yield b"data: " + json.dumps(envelope.chunk([chat_delta(0, {"content": text})])).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    def _tick(self) -> None:
        streams: dict[SimpleQueue[str | None], int] = {}
        while True:
            begin = time.monotonic()
            while not self._new.empty():
                streams[self._new.get()] = self._tokens
            for stream, left in list(streams.items()):
                stream.put(f"{time.monotonic():.6f} " if left else None)
                streams[stream] = left - 1
            streams = {stream: left for stream, left in streams.items() if left >= 0}
            time.sleep(max(0.0005, self._every_s - (time.monotonic() - begin)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--every", type=float, default=0.015, help="seconds between tokens of a stream")
    parser.add_argument("--tokens", type=int, default=40, help="of each stream")
    arguments = parser.parse_args()
    listen(Floor(arguments.every, arguments.tokens), ServeOptions(port=arguments.port)).run()


if __name__ == "__main__":
    main()
