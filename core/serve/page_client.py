"""The page's way to the server: OpenAI's API over HTTP, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

CONNECT_S, IDLE_S = 5.0, 120.0
"""Longest wait for a connection, and between two pieces of an answer (the server pings sooner)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What a person may set beside the conversation."""

    model: str
    system: str = ""
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int = 512


class ServerSaid(Exception):
    """The server refused, failed, or cannot be reached; the text is for the person at the page."""


class ApiClient:
    """Asks one server."""

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(IDLE_S, connect=CONNECT_S)
        # Not through a proxy of the environment: the server is on this machine or named by its owner.
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False)

    def models(self) -> list[str]:
        """Return the model and the adapters that are served."""
        try:
            reply = self._http.get("/v1/models")
            _check(reply)
            return [card["id"] for card in reply.json()["data"]]
        except httpx.HTTPError as error:
            raise ServerSaid(f"the server cannot be reached: {error}") from error

    def answer(self, messages: Sequence[dict[str, str]], knobs: Knobs) -> Iterator[str]:
        """Yield the answer to a conversation in pieces; closing the generator makes the server stop.

        Raises:
            ServerSaid: with the server's own words.
        """
        opening = [{"role": "system", "content": knobs.system}] if knobs.system.strip() else []
        body = {
            "model": knobs.model, "messages": [*opening, *messages], "stream": True,
            "temperature": knobs.temperature, "top_p": knobs.top_p, "top_k": knobs.top_k,
            "repetition_penalty": knobs.repetition_penalty, "max_tokens": knobs.max_tokens,
        }  # fmt: skip
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as reply:
                _check(reply)
                yield from _deltas(reply.iter_lines())
        except httpx.HTTPError as error:
            raise ServerSaid(f"the connection to the server broke: {error}") from error


def _deltas(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("data: "):
            continue  # blank lines, and pings, which are comments
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            return
        event: dict[str, Any] = json.loads(data)
        if "error" in event:
            raise ServerSaid(event["error"]["message"])
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                yield text
    raise ServerSaid("the answer broke off")


def _check(reply: httpx.Response) -> None:
    if reply.is_success:
        return
    reply.read()
    try:
        said = reply.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = f"HTTP status {reply.status_code}"
    raise ServerSaid(said)
