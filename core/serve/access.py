"""Who may ask: API keys, host names, content types. All that is not public is guarded."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

from ..errors import Problem
from .errors import ApiError

PUBLIC = frozenset({"/health", "/health/ready", "/metrics"})
"""Paths that answer without a key; every other one, known or not, needs it."""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class ApiKeys:
    """Keys, held as digests and compared in constant time, all of them every time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, header: str | None) -> None:
        """Look at an ``Authorization`` header.

        Raises:
            ApiError: 401, the same for every reason.
        """
        if not self._digests:
            return
        scheme, _, key = (header or "").partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")


def check_host(header: str | None, allowed: Sequence[str]) -> None:
    """Refuse requests that a web page sent to a name of its own which leads here (DNS rebinding).

    Raises:
        ApiError: 403, where the server listens on the loopback and is asked for by another name.
    """
    name = (header or "").strip()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if allowed and name.lower() not in allowed:
        raise ApiError(403, "this host name is not served")


def allowed_hosts(bind: str) -> tuple[str, ...]:
    """Return the names that a server on this address answers to; empty for all."""
    return tuple(LOCAL_NAMES | {bind.lower()}) if is_loopback(bind) else ()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_bind(host: str, keys: Sequence[str]) -> list[Problem]:
    """Return why a server may not listen there."""
    problems = []
    if not is_loopback(host) and not keys:
        remedy = "Give --api_key_file, or leave it at 127.0.0.1 and put a proxy in front."
        problems.append(Problem("--host", host, "can be reached by others and no API key is set", remedy))
    if any(len(key) < 16 for key in keys):
        problems.append(Problem("--api_key_file", "", "holds a key of less than 16 characters", "Use a longer one."))
    return problems


def check_content_type(header: str | None) -> None:
    """Ask for JSON, which a form on another site cannot send.

    Raises:
        ApiError: 415.
    """
    if (header or "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the content type must be application/json")
