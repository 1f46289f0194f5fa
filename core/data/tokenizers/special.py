"""The part that all tokenizers share: special tokens, which only our own text may spell."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ...errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .settings import Settings, TokenFacts


class SpecialTokenizer(ABC):
    """A tokenizer over a vocabulary of plain text, with special tokens matched around it."""

    def __init__(
        self,
        *,
        source: Path,
        settings: Settings,
        specials: Mapping[str, int],
        vocab_size: int,
        files: Mapping[str, bytes],
    ) -> None:
        """Resolve the special tokens.

        Args:
            source: the vocabulary file, for messages.
            settings: who plays which role.
            specials: id of every special token.
            vocab_size: ids of the vocabulary are below this; special tokens may lie above.
            files: what ``save`` writes besides the settings files, by name.

        Raises:
            DataError: a token of ``settings`` is in neither ``specials`` nor the vocabulary.
        """
        facts = settings.facts
        self._source = source
        self._specials = ids = self._with_roles(specials, facts)
        self._by_id = {number: token for token, number in ids.items()}
        self.special_tokens = tuple(ids)
        self.vocab_size = max([vocab_size - 1, *ids.values()]) + 1
        self.bos_id = ids[facts.bos] if facts.bos else None
        self.eos_id = ids[facts.eos] if facts.eos else None
        self.pad_id = ids[facts.pad] if facts.pad else self.eos_id or 0
        ends = [*([self.eos_id] if self.eos_id is not None else []), *(ids[token] for token in facts.stop)]
        self.stop_ids = tuple(dict.fromkeys((*ends, *settings.stop_ids)))
        self._prefix = [ids[token] for token in facts.prefix or ()]
        self._suffix = [ids[token] for token in facts.suffix]
        self._files = {**settings.files, **files}
        self._pattern = _alternatives(self.special_tokens)

    def encode(
        self, text: str, *, allow_special: bool = False, plain_spans: Sequence[tuple[int, int]] = ()
    ) -> list[int]:
        """Return the ids of ``text``; see ``Tokenizer.encode``."""
        return self._encode_pieces(self._split(text, plain_spans) if allow_special else [text])

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its exact text, or ``None``."""
        number = self._specials.get(token)
        return self._vocabulary_id(token) if number is None else number

    def prompt(self, ids: list[int]) -> list[int]:
        """Add what the family puts around a prompt without chat template."""
        return [*self._prefix, *ids, *self._suffix]

    def save(self, directory: Path) -> None:
        """Write the files that were read, byte by byte as they were read."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (directory / name).write_bytes(content)

    @abstractmethod
    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of ``ids``; bytes that are not whole characters become U+FFFD."""

    @abstractmethod
    def _encode_pieces(self, pieces: Sequence[str | int]) -> list[int]:
        """Encode plain texts, and special tokens given by id, in turn."""

    @abstractmethod
    def _vocabulary_id(self, token: str) -> int | None:
        """Return the id of a token of the vocabulary itself, or ``None``."""

    def _with_roles(self, specials: Mapping[str, int], facts: TokenFacts) -> dict[str, int]:
        """Return the special tokens together with those that the facts name."""
        roles = (facts.bos, facts.eos, facts.pad, *facts.stop, *(facts.prefix or ()), *facts.suffix, *facts.further)
        return {**specials, **{token: self._named(token) for token in roles if token and token not in specials}}

    def _named(self, token: str) -> int:
        number = self._vocabulary_id(token)
        if number is None:
            raise DataError(
                f"{self._source}: the special token {token!r} is not in the vocabulary. "
                f"Are all files in {self._source.parent} of one model?"
            )
        return number

    def _split(self, text: str, plain_spans: Sequence[tuple[int, int]]) -> list[str | int]:
        """Cut ``text`` at its special tokens, except those that touch a plain span."""
        pieces: list[str | int] = []
        done = at = 0
        while self._pattern is not None and (match := self._pattern.search(text, at)):
            start, end = match.span()
            if any(start < stop and begin < end for begin, stop in plain_spans):
                at = start + 1
                continue
            pieces += [text[done:start], self._specials[match.group()]]
            done = at = end
        return [piece for piece in (*pieces, text[done:]) if piece != ""]

    def _break(self, text: str) -> list[str]:
        """Cut ``text`` inside every special token that it spells, so that no part spells one any more."""
        cuts = [match.start() + 1 for match in self._pattern.finditer(text)] if self._pattern is not None else []
        bounds = [0, *(cuts or range(1, len(text))), len(text)]
        return [text[start:end] for start, end in itertools.pairwise(bounds) if start < end]


def _alternatives(tokens: Sequence[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds any of ``tokens``, the longest first where several begin at one place."""
    longest_first = sorted((token for token in tokens if token), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
