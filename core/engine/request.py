"""What goes into the engine and what comes out: requests, events, completions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from ..registry.facts import ModelConfig
    from .settings import SamplingSettings

FinishReason = Literal["stop", "length"]
"""``stop``: a stop token or string came; ``length``: ``max_new_tokens`` or the model's positions are used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt to be answered."""

    prompt: list[int]
    """Token ids, everything that the family puts around a prompt included; at least one."""
    settings: SamplingSettings
    number: int = 0
    """Sets the random numbers of requests with one seed apart."""
    num_logprobs: int | None = None
    """Likeliest tokens to report beside each chosen one; ``None`` for no log-probabilities."""
    prompt_logprobs: bool = False
    """Report those of the prompt's tokens as well."""
    adapter: str | None = None
    """Name of the adapter that answers; ``None`` for the model itself."""

    def room(self, config: ModelConfig) -> int:
        """Return how many tokens may be generated: ``max_new_tokens``, or what the model's positions leave.

        Raises:
            RefusedError: the prompt is empty, or leaves no position for a new token.
        """
        if not self.prompt:
            raise RefusedError(Problem("prompt", "", "is empty", "Give at least one token."))
        left = config.max_positions - len(self.prompt)
        if left < 1:
            raise RefusedError(
                Problem(
                    "prompt",
                    f"{len(self.prompt)} tokens",
                    f"leave no room for an answer in the model's {config.max_positions} positions",
                    f"Shorten it, or give --src_length {config.max_positions - 1} or less.",
                )
            )
        return min(self.settings.max_new_tokens, left)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, by the model's logits before penalties and temperature."""

    token: int
    text: str
    logprob: float
    """Natural logarithm of the probability."""
    top: tuple[tuple[int, str, float], ...] = ()
    """Token, text and log-probability of the likeliest tokens, the likeliest first."""


@dataclass(slots=True)
class TokenEvent:
    """One generated token of one request."""

    index: int
    """The request's place in the list that was handed in."""
    token: int
    text: str
    """What can be shown now: whole characters, and nothing that may yet become part of a stop string."""
    finish_reason: FinishReason | None = None
    """Set on the request's last event."""
    logprob: TokenLogprob | None = None
    """Where the request asks for it."""


@dataclass(slots=True)
class Completion:
    """The answer to one request."""

    num_prompt_tokens: int
    ids: list[int] = field(default_factory=list)
    """Generated tokens; a stop token is the last one."""
    text: str = ""
    """Without special tokens and without the stop string; empty where no tokenizer was given."""
    finish_reason: FinishReason = "length"

    def add(self, event: TokenEvent) -> None:
        """Append one token's event."""
        self.ids.append(event.token)
        self.text += event.text
        if event.finish_reason is not None:
            self.finish_reason = event.finish_reason
