"""What a client asks for: the bodies of OpenAI's chat and text completions, checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .errors import ApiError
from .fields import Fields, wrong

if TYPE_CHECKING:
    from ..data.chat import Message

MAX_CHOICES = 64
MAX_PROMPTS = 64
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_BIASES = 1024
MAX_TOP_LOGPROBS = 20
MAX_MESSAGES = 1024
MAX_TOKENS = 1 << 20
MAX_SEED = (1 << 63) - 1
MAX_CHARACTERS = 4 << 20
"""Bounds on a request; none is near to what a real client sends."""

HARMLESS: dict[str, tuple[Any, ...]] = {
    "tools": (None, []), "functions": (None, []), "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none"), "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]), "audio": (None,),
    "prediction": (None,), "web_search_options": (None,), "suffix": (None, ""), "store": (None, False),
    "reasoning_effort": (None,), "verbosity": (None,), "guided_json": (None,), "guided_regex": (None,),
    "prompt_logprobs": (None,), "use_beam_search": (None, False), "length_penalty": (None, 1, 1.0),
    "chat_template": (None,), "chat_template_kwargs": (None, {}),
}  # fmt: skip
"""Fields of the API that this server does not do, and the values under which nothing is missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What every kind of request says about its answer."""

    model: str | None
    max_tokens: int | None
    """``None``: as many as fit."""
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    stop: tuple[str, ...]
    ignore_eos: bool
    n: int
    top_logprobs: int | None
    """``None``: no log-probabilities; 0: of the chosen token only."""
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """``POST /v1/chat/completions``."""

    wanted: Wanted
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """``POST /v1/completions``."""

    wanted: Wanted
    prompts: tuple[str | list[int], ...]
    echo: bool


def read_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Check a chat request.

    Raises:
        ApiError: 400, naming the field.
    """
    fields = Fields(body)
    _refuse_unsupported(fields)
    most = fields.integer("max_completion_tokens", fields.integer("max_tokens", 0, low=1, high=MAX_TOKENS), low=1,
                          high=MAX_TOKENS)  # fmt: skip
    top = fields.integer("top_logprobs", 0, low=0, high=MAX_TOP_LOGPROBS)
    asked = fields.flag("logprobs")
    if top and not asked:
        raise wrong("top_logprobs", "needs logprobs to be true")
    wanted = _wanted(fields, max_tokens=most or None, top_logprobs=top if asked else None)
    return ChatRequest(wanted=wanted, messages=tuple(_messages(fields.get("messages"))))


def read_text(body: Mapping[str, Any]) -> TextRequest:
    """Check a text completion request.

    Raises:
        ApiError: 400, naming the field.
    """
    fields = Fields(body)
    _refuse_unsupported(fields)
    prompts = tuple(_prompts(fields.get("prompt")))
    top = None if fields.get("logprobs") is None else fields.integer("logprobs", 0, low=0, high=MAX_TOP_LOGPROBS)
    echo = fields.flag("echo")
    most = fields.integer("max_tokens", 16, low=0 if echo else 1, high=MAX_TOKENS)
    wanted = _wanted(fields, max_tokens=most, top_logprobs=top)
    best_of = fields.integer("best_of", wanted.n, low=1, high=MAX_CHOICES)
    if best_of != wanted.n:
        raise wrong("best_of", "is not supported; use n and choose yourself")
    if len(prompts) * wanted.n > MAX_PROMPTS:
        raise wrong("prompt", f"times n is more than {MAX_PROMPTS} answers")
    if echo and wanted.stream:
        raise wrong("echo", "is not supported together with stream")
    return TextRequest(wanted=wanted, prompts=prompts, echo=echo)


def _wanted(fields: Fields, *, max_tokens: int | None, top_logprobs: int | None) -> Wanted:
    options = fields.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise wrong("stream_options", "must be an object")
    stream = fields.flag("stream")
    return Wanted(
        model=fields.text("model", "", longest=256) or None,
        max_tokens=max_tokens,
        temperature=fields.number("temperature", 1.0, low=0.0, high=2.0),
        top_p=fields.number("top_p", 1.0, low=0.0, high=1.0),
        top_k=max(0, fields.integer("top_k", 0, low=-1, high=1 << 20)),
        min_p=fields.number("min_p", 0.0, low=0.0, high=1.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0, low=0.01, high=10.0),
        presence_penalty=fields.number("presence_penalty", 0.0, low=-2.0, high=2.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0, low=-2.0, high=2.0),
        logit_bias=_biases(fields.get("logit_bias")),
        seed=None if fields.get("seed") is None else fields.integer("seed", 0, low=-MAX_SEED, high=MAX_SEED) % MAX_SEED,
        stop=fields.strings("stop", most=MAX_STOPS, longest=MAX_STOP_LENGTH),
        ignore_eos=fields.flag("ignore_eos"),
        n=fields.integer("n", 1, low=1, high=MAX_CHOICES),
        top_logprobs=top_logprobs,
        stream=stream,
        include_usage=stream and Fields(options or {}).flag("include_usage"),
    )


def _refuse_unsupported(fields: Fields) -> None:
    for name, values in HARMLESS.items():
        if fields.get(name) not in values:
            raise wrong(name, "is not supported by this server")


def _messages(value: Any) -> Iterator[Message]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise wrong("messages", f"must be a list of 1 to {MAX_MESSAGES} messages")
    total = 0
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise wrong(f"messages[{index}]", "must be an object")
        role = "system" if item.get("role") == "developer" else item.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            raise wrong(f"messages[{index}].role", "must be system, developer, user, assistant or tool")
        if item.get("tool_calls"):
            raise wrong(f"messages[{index}].tool_calls", "is not supported by this server")
        content = _content(item.get("content"), index)
        total += len(content)
        if total > MAX_CHARACTERS:
            raise ApiError(413, f"messages: more than {MAX_CHARACTERS} characters", param="messages")
        yield cast("Message", {"role": role, "content": content})


def _content(value: Any, index: int) -> str:
    """Return a message's text; it may be a list of parts, of which only texts are served."""
    name = f"messages[{index}].content"
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(name, "must be text or a list of text parts")
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise wrong(name, 'may hold only parts {"type": "text", "text": ...}')
        texts.append(part["text"])
    return "".join(texts)


def _prompts(value: Any) -> Iterator[str | list[int]]:
    """Yield prompts: one text, several, the tokens of one, or of several."""
    listed = value if isinstance(value, list) and value and not isinstance(value[0], int) else [value]
    if len(listed) > MAX_PROMPTS:
        raise wrong("prompt", f"has {len(listed)} prompts; at most {MAX_PROMPTS} are allowed")
    for item in listed:
        if isinstance(item, str):
            if len(item) > MAX_CHARACTERS:
                raise ApiError(413, f"prompt: more than {MAX_CHARACTERS} characters", param="prompt")
            yield item
        elif isinstance(item, list) and item and all(isinstance(x, int) and not isinstance(x, bool) for x in item):
            yield item
        else:
            raise wrong("prompt", "must be text, a list of texts, tokens, or a list of lists of tokens")


def _biases(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise wrong("logit_bias", f"must be an object with at most {MAX_BIASES} entries")
    biases = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise wrong("logit_bias", "must have token ids as keys")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise wrong("logit_bias", "must have numbers from -100 to 100 as values")
        biases[int(key)] = float(bias)
    return biases
