"""tiktoken vocabularies: one ``base64 rank`` a line (``qwen.tiktoken``)."""

from __future__ import annotations

import base64
import binascii
import unicodedata
from typing import TYPE_CHECKING

from ...errors import DataError
from .files import cause, read_bytes
from .settings import TokenFacts, read_settings
from .special import SpecialTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tiktoken

MAX_RUN = 100_000
"""Longest text that tiktoken is given at once: its regular expressions overflow their stack on a run of a million
equal characters. Longer texts are cut at the last space before the limit."""


class TiktokenTokenizer(SpecialTokenizer):
    """Byte-pair encoding by merge ranks, with special tokens around it."""

    def __init__(
        self,
        path: Path,
        *,
        pattern: str,
        specials: Sequence[str],
        facts: TokenFacts | None = None,
        normalize: bool = False,
    ) -> None:
        """Load ``path`` and the settings files beside it.

        Args:
            path: the ranks file; ``save`` writes it under the same name.
            pattern: regular expression that cuts text before merging.
            specials: special tokens, which follow the ranks in order.
            facts: the family's special tokens; the settings files win over them.
            normalize: bring text into Unicode NFC first.

        Raises:
            DataError: a file is missing or malformed, or a special token is unknown.
        """
        content = read_bytes(path)
        self._ranks = _parse_ranks(content, path)
        settings = read_settings(path.parent, facts or TokenFacts())
        size = max(self._ranks.values()) + 1
        ordered = {token: size + place for place, token in enumerate(specials)}
        super().__init__(
            source=path,
            settings=settings,
            specials={**ordered, **settings.added},
            vocab_size=size,
            files={path.name: content},
        )
        self._normalize = normalize
        self._tokens = {rank: token for token, rank in self._ranks.items()}
        self._encoding = _build(self._ranks, pattern, path)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of ``ids``; bytes that are not whole characters become U+FFFD."""
        parts = []
        for number in ids:
            if number in self._by_id:
                parts.append(b"" if skip_special else self._by_id[number].encode())
            else:
                parts.append(self._tokens.get(number, b""))
        return b"".join(parts).decode("utf-8", errors="replace")

    def _encode_pieces(self, pieces: Sequence[str | int]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
                continue
            text = unicodedata.normalize("NFC", piece) if self._normalize else piece
            for part in _runs(text):
                ids += self._encoding.encode_ordinary(part)
        return ids

    def _vocabulary_id(self, token: str) -> int | None:
        return self._ranks.get(token.encode())


def _build(ranks: dict[bytes, int], pattern: str, path: Path) -> tiktoken.Encoding:
    """Make the encoder.

    Raises:
        DataError: the ranks cannot be merged.
    """
    import tiktoken

    try:
        encoding = tiktoken.Encoding(path.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        encoding.encode_ordinary("a")
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: is not a complete byte-pair vocabulary: {cause(error)}.") from error
    return encoding


def _runs(text: str) -> list[str]:
    """Cut a very long text; all others come back whole."""
    parts = []
    while len(text) > MAX_RUN:
        cut = text.rfind(" ", 1, MAX_RUN)
        cut = MAX_RUN if cut < 0 else cut
        parts.append(text[:cut])
        text = text[cut:]
    return [*parts, text]


def _parse_ranks(content: bytes, path: Path) -> dict[bytes, int]:
    """Read the lines of a ranks file.

    Raises:
        DataError: a line is malformed; the text gives its number.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise DataError(f"{path}: line {number}: {line[:60]!r} is not a base64 token and its rank.") from error
    if len(set(ranks.values())) != len(ranks) or not ranks:
        raise DataError(f"{path}: the ranks are not all different, or there are none.")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise DataError(f"{path}: byte {missing[0]} has no rank, so that not every text can be encoded.")
    return ranks
