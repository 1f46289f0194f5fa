"""Answers checked requests with the engine: tokens in, events out, in the words of the API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..engine.failures import EngineDeadError, QueueFullError
from ..errors import LlmRunError
from .desk import Desk
from .errors import ApiError
from .metrics import Metrics
from .prompting import Prompting
from .replies import (
    Answer,
    Envelope,
    Usage,
    chat_choice,
    chat_delta,
    text_choice,
    text_logprobs,
)  # fmt: skip
from .runs import Runs
from .turns import Turns

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.handle import Handle
    from ..engine.request import TokenLogprob
    from .schema import ChatRequest, TextRequest, Wanted

POLL_S = 0.05
"""How often a waiting request looks whether its client is still there."""
PING, DONE = b": ping\n\n", b"data: [DONE]\n\n"
RETRY_AFTER_S = 2


class Service:
    """One engine behind the API."""

    def __init__(self, engine: Engine, prompting: Prompting, *, deadline_s: float) -> None:
        """Serve an engine that runs.

        Args:
            engine: generates.
            prompting: turns requests into tokens.
            deadline_s: longest time that a request may take, from its arrival.
        """
        self.engine = engine
        self.prompting = prompting
        self.metrics = Metrics()
        self.desk = Desk()
        self._turns = Turns()
        engine.before_step = self._turns.await_all  # it never runs ahead of what can be told
        self.created = int(time.time())
        self._deadline_s = deadline_s

    @property
    def names(self) -> list[str]:
        """The model's name, then those of its adapters."""
        return self.prompting.names

    @property
    def max_length(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self.prompting.max_length

    @property
    def is_alive(self) -> bool:
        """Whether the engine can answer at all."""
        return self.engine.is_alive

    @property
    def is_ready(self) -> bool:
        """Whether new requests are taken."""
        return self.engine.is_alive and not self.engine.is_draining

    def root_of(self, name: str) -> str | None:
        """Return the model that an adapter belongs to."""
        return None if name == self.names[0] else self.names[0]

    def check_model(self, name: str | None) -> None:
        """Make sure that a model is served.

        Raises:
            ApiError: 404.
        """
        if name is not None and name not in self.names:
            raise ApiError(404, "the model does not exist; /v1/models lists those there are", param="model",
                           code="model_not_found")  # fmt: skip

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the tokens of a text, with what the model begins a text with where ``special``."""
        return self.prompting.encode(text, special=special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return self.prompting.decode(tokens)

    def tokenizer_info(self) -> dict[str, Any]:
        """Return what a client needs to know of the tokenizer; the template stays here."""
        return self.prompting.info()

    def figures(self) -> bytes:
        """Return the metrics as text."""
        return self.metrics.text(self.engine.stats())

    # ---- chat

    def chat(self, asked: ChatRequest, is_gone: Callable[[], bool]) -> dict[str, Any]:
        """Answer a chat request as a whole."""
        envelope, usage, runs = self._open_chat(asked)
        answers = self._finish(runs, usage, is_gone)
        wants = asked.wanted.top_logprobs is not None
        return envelope.whole([chat_choice(answer, wants) for answer in answers], usage)

    def stream_chat(self, asked: ChatRequest) -> Iterator[bytes]:
        """Yield the events of a chat; everything that can be refused is refused before the first one."""
        envelope, usage, runs = self._open_chat(asked)
        with closing(runs):
            for index in range(len(runs.handles)):
                yield _event(envelope.chunk([chat_delta(index, {"role": "assistant", "content": ""})]))
            try:
                for index, event in runs.events():
                    if event is None:
                        yield PING
                        continue
                    delta = {"content": event.text} if event.text else {}
                    logprobs = () if event.logprob is None else (event.logprob,)
                    if delta or logprobs or event.finish_reason:
                        choice = chat_delta(index, delta, reason=event.finish_reason, logprobs=logprobs)
                        yield _event(envelope.chunk([choice]))
                if asked.wanted.include_usage:
                    yield _event(envelope.chunk([], runs.counted(usage)))
                yield DONE
            except LlmRunError as error:
                yield _event(_failure(error).body())

    def pieces(self, asked: ChatRequest) -> Iterator[str]:
        """Yield the text of a chat's one answer as it comes."""
        _, _, runs = self._open_chat(asked)
        with closing(runs):
            for _, event in runs.events():
                if event is not None and event.text:
                    yield event.text

    def _open_chat(self, asked: ChatRequest) -> tuple[Envelope, Usage, Runs]:
        self.check_model(asked.wanted.model)
        prompt = self.prompting.of_chat(asked.messages)
        runs = self._submit([prompt], asked.wanted)
        return Envelope.chat(asked.wanted.model or self.names[0]), Usage(prompt_tokens=len(prompt)), runs

    # ---- text

    def text(self, asked: TextRequest, is_gone: Callable[[], bool]) -> dict[str, Any]:
        """Answer a text completion as a whole."""
        envelope, usage, runs = self._open_text(asked)
        answers = self._finish(runs, usage, is_gone)
        choices = []
        for answer in answers:
            prompt = runs.prompts[answer.index // asked.wanted.n]
            choices.append(self._text_choice(asked, answer, prompt, runs.handles[answer.index]))
        return envelope.whole(choices, usage)

    def stream_text(self, asked: TextRequest) -> Iterator[bytes]:
        """Yield the events of a text completion."""
        envelope, usage, runs = self._open_text(asked)
        shown = [0] * len(runs.handles)
        with closing(runs):
            yield PING  # the status line goes out once the request is in
            try:
                for index, event in runs.events():
                    if event is None:
                        yield PING
                        continue
                    said = None
                    if event.logprob is not None:
                        said = text_logprobs([event.logprob], [event.logprob.text], shown[index])
                        shown[index] += len(event.logprob.text)
                    if event.text or said or event.finish_reason:
                        yield _event(envelope.chunk([text_choice(index, event.text, event.finish_reason, said)]))
                if asked.wanted.include_usage:
                    yield _event(envelope.chunk([], runs.counted(usage)))
                yield DONE
            except LlmRunError as error:
                yield _event(_failure(error).body())

    def _open_text(self, asked: TextRequest) -> tuple[Envelope, Usage, Runs]:
        self.check_model(asked.wanted.model)
        prompts = [self.prompting.of_text(prompt) for prompt in asked.prompts]
        runs = self._submit(prompts, asked.wanted, prompt_logprobs=asked.echo and asked.wanted.top_logprobs is not None)
        usage = Usage(prompt_tokens=sum(map(len, prompts)))
        return Envelope.text(asked.wanted.model or self.names[0]), usage, runs

    def _text_choice(self, asked: TextRequest, answer: Answer, prompt: Sequence[int], handle: Handle) -> dict[str, Any]:
        text, texts = answer.text, [entry.text for entry in answer.logprobs]
        entries: list[TokenLogprob | None] = [*answer.logprobs]
        if asked.echo:
            text = self.prompting.decode(prompt) + text
        if asked.echo and asked.wanted.top_logprobs is not None:
            entries = [*handle.prompt_logprobs, *entries]
            texts = [*(self.prompting.decode([token]) for token in prompt), *texts]
        said = None if asked.wanted.top_logprobs is None else text_logprobs(entries, texts)
        return text_choice(answer.index, text, answer.finish_reason, said)

    # ---- both

    def _submit(self, prompts: list[list[int]], wanted: Wanted, *, prompt_logprobs: bool = False) -> Runs:
        """Hand the prompts to the engine, all or none.

        Raises:
            ApiError: 400 for a prompt that cannot fit, 429 where too many wait, 503 where the engine is dead or leaves.
        """
        if not self.is_ready:
            raise ApiError(503, "the server takes no new requests", code="unavailable", retry_after_s=RETRY_AFTER_S)
        runs = Runs(prompts, self.metrics, self._turns, deadline=time.monotonic() + self._deadline_s)
        try:
            for number, prompt in enumerate(prompts):
                for choice in range(wanted.n):
                    request = self.prompting.request(
                        prompt, wanted, number=number * wanted.n + choice, prompt_logprobs=prompt_logprobs
                    )
                    runs.handles.append(self.engine.submit(request))
        except BaseException as error:
            runs.close()
            if isinstance(error, LlmRunError):
                raise _failure(error) from error
            raise
        self.desk.leave()
        return runs

    def _finish(self, runs: Runs, usage: Usage, is_gone: Callable[[], bool]) -> list[Answer]:
        """Wait for all answers; a client that leaves ends them."""
        answers = [Answer(index) for index in range(len(runs.handles))]
        look = time.monotonic() + POLL_S
        with closing(runs):
            try:
                for index, event in runs.events(POLL_S):
                    if event is not None:
                        answers[index].add(event)
                    if time.monotonic() < look:
                        continue
                    look = time.monotonic() + POLL_S
                    if is_gone():
                        runs.give_up("gone")
                        raise ApiError(400, "the client has left")
            except LlmRunError as error:
                raise _failure(error) from error
            runs.counted(usage)
        return answers


def _failure(error: LlmRunError) -> ApiError:
    """Return what a client is told of an error of the engine."""
    if isinstance(error, QueueFullError):
        return ApiError(
            429, "the server is busy: too many requests wait", code="overloaded", retry_after_s=RETRY_AFTER_S
        )
    if isinstance(error, EngineDeadError):
        return ApiError(500, "the engine has died; the server must be restarted", code="engine_dead")
    return ApiError(400, str(error))


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"
