"""The common face of all tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Tokenizer(Protocol):
    """Text to token ids and back. Implementations live beside this file; families choose one and state its ids."""

    vocab_size: int
    """Ids are below this, special tokens included. The model's own vocabulary may be padded above it."""
    bos_id: int | None
    eos_id: int | None
    pad_id: int
    """Never supervised; equal to ``eos_id`` only where the family has no padding token of its own."""
    stop_ids: tuple[int, ...]
    """Ids that end a generated text or turn, ``eos_id`` included."""
    special_tokens: tuple[str, ...]
    """Texts that ``encode(..., allow_special=True)`` turns into one token each (``<|im_end|>``)."""

    def encode(
        self, text: str, *, allow_special: bool = False, plain_spans: Sequence[tuple[int, int]] = ()
    ) -> list[int]:
        """Return the ids of ``text``; nothing is added.

        Args:
            text: any string.
            allow_special: the text is ours (a template), so that ``<|im_end|>`` in it is the special token. Left
                False for what a user typed: there it is encoded as plain text.
            plain_spans: with ``allow_special``, the parts [start, end) of ``text`` that a user typed: a special
                token that touches one of them is plain text all the same.
        """

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of ``ids``; bytes that are not whole characters become U+FFFD."""

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its exact text (``<|im_end|>``), or ``None``."""

    def prompt(self, ids: list[int]) -> list[int]:
        """Add what the family puts around a prompt without chat template (``<s>`` before, ``[gMASK]<sop>`` after)."""

    def save(self, directory: Path) -> None:
        """Write the files that ``llm_run_tokenizer`` and Hugging Face read, byte by byte as they were read."""
