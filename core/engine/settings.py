"""How one request is to be decoded. Imports no Paddle, so that a bad value is refused early."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..config.groups import DecodingOptions

Strategy = Literal["sampling", "greedy_search", "beam_search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """What decides the tokens of one request, besides the model and the prompt.

    Raises:
        RefusedError: on construction, with every value that is out of its range.
    """

    strategy: Strategy = "greedy_search"
    max_new_tokens: int = 256
    """The stop token counts as one."""
    min_new_tokens: int = 0
    """Tokens before the first stop token is allowed."""
    temperature: float = 1.0
    """Divides the logits; 0 means greedy search."""
    top_k: int = 0
    """Sample from the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that hold this probability together; 0 leaves the likeliest one."""
    min_p: float = 0.0
    """Leave out tokens below this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens of the prompt and the answer so far (negative ones are multiplied)."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens that the answer has already."""
    frequency_penalty: float = 0.0
    """Taken off the logits of tokens of the answer, times how often they occur there."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of single tokens."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end the answer; they are no part of its text."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; they are no part of its text."""
    seed: int = 0
    """With the request's number it decides the random numbers, whatever else is in the batch."""
    num_beams: int = 1
    """Beams of beam search."""
    length_penalty: float = 1.0
    """A finished beam's log-probability is divided by its length to this power."""
    early_stopping: bool = False
    """Beam search ends when ``num_beams`` beams are finished, although a running one might still beat them."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise RefusedError(*problems)

    @property
    def is_greedy(self) -> bool:
        """The likeliest token is taken, without chance."""
        return self.strategy == "greedy_search" or (self.strategy == "sampling" and self.temperature == 0.0)

    @classmethod
    def from_options(cls, options: DecodingOptions, *, seed: int, stop_ids: tuple[int, ...]) -> SamplingSettings:
        """Read the command's options.

        Raises:
            RefusedError: with every value that is out of its range.
        """
        return cls(
            strategy=_strategy(options.decode_strategy),
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            stop_ids=stop_ids,
            stop=options.stop,
            seed=seed,
            num_beams=options.num_beams if options.decode_strategy == "beam_search" else 1,
            length_penalty=options.length_penalty,
        )

    def _problems(self) -> Iterable[Problem]:
        ranges: tuple[tuple[str, float, bool, str], ...] = (
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "Give 1 or more"),
            ("min_new_tokens", self.min_new_tokens, 0 <= self.min_new_tokens <= self.max_new_tokens,
             f"Give 0 to max_new_tokens ({self.max_new_tokens})"),
            ("temperature", self.temperature, self.temperature >= 0.0, "Give 0 (greedy) or more"),
            ("top_k", self.top_k, self.top_k >= 0, "Give 0 (all tokens) or more"),
            ("top_p", self.top_p, 0.0 <= self.top_p <= 1.0, "Give 0 to 1"),
            ("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "Give 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0,
             "Give more than 0; 1 is none"),
            ("seed", self.seed, self.seed >= 0, "Give 0 or more"),
            ("num_beams", self.num_beams, self.num_beams >= 1, "Give 1 or more"),
        )  # fmt: skip
        for key, value, is_right, remedy in ranges:
            if not is_right:
                yield Problem(f"--{key}", str(value), "is out of range", f"{remedy}.")
        if "" in self.stop:
            yield Problem("--stop", "''", "is empty and would end every answer at once", "Leave it out.")


def _strategy(word: str) -> Strategy:
    for strategy in get_args(Strategy):
        if strategy == word:
            return strategy  # type: ignore[no-any-return]
    raise RefusedError(
        Problem("--decode_strategy", repr(word), "is unknown", f"Allowed: {', '.join(get_args(Strategy))}.")
    )
