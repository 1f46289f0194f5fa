"""Tokens guessed ahead: the model checks them all in one step, and keeps those that it would have chosen itself.

A guess costs time where it is wrong, and changes no answer: each token is chosen from the model's own logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from ..errors import Problem, RefusedError
from ..ops.from_array import from_array
from ..ops.mask import AttentionMask
from .cache import ContiguousCache
from .runner import inference

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..config.groups import DecodingOptions
    from ..registry.facts import ModelConfig
    from .sequence import Sequence

LONGEST_MATCH, SHORTEST_MATCH = 4, 2
"""Tokens at the end of a text that must have occurred before, in this order."""


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def propose(self, sequence: Sequence, most: int) -> list[int]:
        """Return at most ``most`` tokens that may follow; none where there is no good guess."""


class PromptLookup:
    """Guesses that what followed the text's last tokens before will follow again.

    Good for summaries, corrections and code, which repeat their prompt; costs next to nothing elsewhere.

    Source: Saxena 2023, "Prompt Lookup Decoding".
    """

    def __init__(self, num_tokens: int) -> None:
        """Guess up to ``num_tokens`` at once."""
        self._num_tokens = num_tokens

    def propose(self, sequence: Sequence, most: int) -> list[int]:
        """Return what followed the newest earlier place with the same last tokens."""
        ids = np.array(sequence.tokens, dtype=np.int64)
        for size in range(LONGEST_MATCH, SHORTEST_MATCH - 1, -1):
            if len(ids) <= size:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], size)
            places = np.flatnonzero((windows == ids[-size:]).all(axis=1))
            if len(places):
                begin = int(places[-1]) + size
                found: list[int] = ids[begin : begin + min(most, self._num_tokens)].tolist()
                return found
        return []


class DraftModel:
    """Guesses with a smaller model of the same vocabulary.

    Source: Leviathan et al. 2023, arXiv:2211.17192.
    """

    def __init__(self, model: CausalLM, num_tokens: int, vocab_size: int) -> None:
        """Guess up to ``num_tokens`` at once, of the first ``vocab_size`` tokens."""
        self._model, self._num_tokens, self._vocab_size = model, num_tokens, vocab_size
        self._caches: WeakKeyDictionary[Sequence, _Known] = WeakKeyDictionary()

    def propose(self, sequence: Sequence, most: int) -> list[int]:
        """Return the likeliest tokens, one after the other."""
        room = self._model.config.max_positions - len(sequence.tokens)
        known = self._caches.setdefault(sequence, _Known(self._model.config))
        known.keep_common(sequence.tokens)
        ids, guessed = list(sequence.tokens), []
        for _ in range(min(most, self._num_tokens, room)):
            logits_V = self._next(ids, sequence.num_prompt, known)
            guessed.append(int(logits_V[: self._vocab_size].argmax()))
            ids.append(guessed[-1])
        return guessed

    def _next(self, ids: list[int], num_prompt: int, known: _Known) -> np.ndarray:
        start, config = len(known.ids), self._model.config
        ids_1T = np.array([ids], dtype=np.int64)
        prefix_1T = np.arange(len(ids))[None] < num_prompt if config.prefix_lm else None
        positions = config.positions(ids_1T, np.ones_like(ids_1T, dtype=np.int32), prefix_1T)[..., start:]
        mask = AttentionMask(prefix_BT=None if prefix_1T is None else from_array(prefix_1T))
        with inference(self._model):
            hidden_1SH = self._model(
                from_array(ids_1T[:, start:]),
                from_array(np.ascontiguousarray(positions)),
                mask,
                known.cache,
            )
            logits_V: np.ndarray = self._model.head(hidden_1SH[:, -1]).astype("float32").numpy()[0]
        known.ids = list(ids)
        return logits_V


class _Known:
    """What a draft model has read of a text."""

    def __init__(self, config: ModelConfig) -> None:
        self.ids: list[int] = []
        self.cache = ContiguousCache(config)

    def keep_common(self, tokens: list[int]) -> None:
        """Forget guesses that turned out wrong, and the last token, whose logits are needed."""
        count = min(len(self.ids), len(tokens) - 1)
        while count and self.ids[:count] != tokens[:count]:
            count -= 1
        self.ids = self.ids[:count]
        self.cache.truncate(count)


def make_drafter(options: DecodingOptions, config: ModelConfig) -> Drafter | None:
    """Return what guesses ahead, as the options say; ``None`` for nothing.

    Raises:
        RefusedError: the draft model is missing, or has another vocabulary.
        WeightError: its weights cannot be read.
    """
    if not options.num_draft_tokens:
        return None
    if options.draft_model is None:
        return PromptLookup(options.num_draft_tokens)
    from ..convert.fields import read_fields
    from ..convert.load import load_model
    from ..registry.manager import find_family

    path = Path(options.draft_model)
    fields = read_fields(path)
    family = find_family(fields)
    draft_config = family.read_config(fields)
    if draft_config.vocab_size != config.vocab_size:
        reason = f"has {draft_config.vocab_size} tokens, and the model {config.vocab_size}"
        raise RefusedError(Problem("--draft_model", str(path), reason, "Use a smaller model of the same series."))
    model = load_model(family, draft_config, path, keep_integers=True)
    model.eval()
    return DraftModel(model, options.num_draft_tokens, config.vocab_size)
