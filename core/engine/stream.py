"""Token by token to text that can be shown: whole characters, and never a part of a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
"""What a tokenizer decodes bytes to that are no whole character (yet)."""


class Detokenizer:
    """Decodes an answer as it grows; the pieces together are what decoding the whole at once gives.

    Decoding one token alone is wrong: a character may be spread over tokens, and SentencePiece drops the space of a
    first token. So a token is decoded together with the ones of the piece before it, and what those give alone is
    taken off.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0
        """The first token that is decoded again."""
        self._shown = 0
        """Tokens before this one have been shown."""

    def push(self, token: int) -> str:
        """Add a token and return the new text; empty while a character is not complete."""
        self._ids.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith(REPLACEMENT):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return fresh

    def finish(self) -> str:
        """Return what was held back: bytes that never became a character, as U+FFFD."""
        fresh = self._fresh()
        self._context = self._shown = len(self._ids)
        return fresh

    def _fresh(self) -> str:
        known = self._tokenizer.decode(self._ids[self._context : self._shown])
        return self._tokenizer.decode(self._ids[self._context :])[len(known) :]


class StopStrings:
    """Cuts a growing text off before the first stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.found = False
        """A stop string has come; nothing follows."""

    def push(self, text: str) -> str:
        """Add text and return what can be shown: all but an end that a stop string may begin with."""
        if not self._stop:
            return text
        if self.found:
            return ""
        self._held += text
        starts = [place for place in map(self._held.find, self._stop) if place >= 0]
        if starts:
            self.found = True
            shown, self._held = self._held[: min(starts)], ""
            return shown
        keep = len(self._held) - self._undecided()
        shown, self._held = self._held[:keep], self._held[keep:]
        return shown

    def finish(self) -> str:
        """Return what was held back, since no more text comes."""
        shown, self._held = self._held, ""
        return shown

    def _undecided(self) -> int:
        longest = max(map(len, self._stop)) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-count:]) for stop in self._stop):
                return count
        return 0


class TextStream:
    """The text of one answer, from its tokens to what is shown; gives no text without a tokenizer."""

    def __init__(self, tokenizer: Tokenizer | None, stop: Sequence[str]) -> None:
        self._detokenizer = None if tokenizer is None else Detokenizer(tokenizer)
        self._stop = StopStrings(stop)

    @property
    def is_stopped(self) -> bool:
        """A stop string has come."""
        return self._stop.found

    def push(self, token: int) -> str:
        """Add a token and return what can be shown now."""
        return "" if self._detokenizer is None else self._stop.push(self._detokenizer.push(token))

    def finish(self) -> str:
        """Return what was held back, except for a stop string that only the end completes."""
        if self._detokenizer is None:
            return ""
        return self._stop.push(self._detokenizer.finish()) + self._stop.finish()
