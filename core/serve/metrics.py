"""Figures for Prometheus, under vLLM's names with a prefix of our own, so that dashboards can be taken over.

Source: vLLM, docs/usage/metrics (names); label values come from fixed sets, never from a request.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

if TYPE_CHECKING:
    from ..engine.stats import EngineStats

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
PREFIX = "llm_run"


class Metrics:
    """One server's figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.running = self._gauge("num_requests_running", "requests that are being answered")
        self.waiting = self._gauge("num_requests_waiting", "requests that wait for room")
        self.cache_usage = self._gauge("kv_cache_usage_perc", "share of the cache's blocks in use, 0 to 1")
        self.prompt_tokens = self._counter("prompt_tokens", "tokens of prompts")
        self.generation_tokens = self._counter("generation_tokens", "tokens generated")
        self.preemptions = self._gauge("num_preemptions", "requests that gave their blocks up and were computed again")
        self.prefix_queries = self._gauge("prefix_cache_queries", "tokens looked up in the prefix cache")
        self.prefix_hits = self._gauge("prefix_cache_hits", "tokens found there")
        self.success = self._counter("request_success", "answers that ended", ("finished_reason",))
        self.rejected = self._counter("request_rejected", "requests refused", ("reason",))
        self.aborted = self._counter("request_aborted", "answers given up", ("reason",))
        self.first_token = self._histogram("time_to_first_token_seconds", "from arrival to the first token", SECONDS)
        self.between_tokens = self._histogram("inter_token_latency_seconds", "between tokens of one answer", SECONDS)
        self.whole = self._histogram("e2e_request_latency_seconds", "from arrival to the last token", SECONDS)
        self.per_prompt = self._histogram("request_prompt_tokens", "tokens of a prompt", TOKENS)
        self.per_answer = self._histogram("request_generation_tokens", "tokens of an answer", TOKENS)
        build = Info(f"{PREFIX}_build", "versions", registry=self._registry)
        build.info({"llm_run": metadata.version("llm-run")})

    def text(self, stats: EngineStats) -> bytes:
        """Return all figures in Prometheus' text format, those of the engine brought up to date."""
        self.running.set(stats.running)
        self.waiting.set(stats.waiting)
        self.cache_usage.set(stats.cache_usage)
        self.preemptions.set(stats.preemptions)
        self.prefix_queries.set(stats.prefix_queries)
        self.prefix_hits.set(stats.prefix_hits)
        return generate_latest(self._registry)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(f"{PREFIX}:{name}", help, registry=self._registry)

    def _counter(self, name: str, help: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"{PREFIX}:{name}", help, labels, registry=self._registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"{PREFIX}:{name}", help, buckets=buckets, registry=self._registry)
