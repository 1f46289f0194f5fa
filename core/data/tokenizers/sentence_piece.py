"""SentencePiece models (``tokenizer.model``), read as Hugging Face's LlamaTokenizer reads them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ...errors import DataError
from .files import cause, read_bytes
from .settings import TokenFacts, read_settings
from .special import SpecialTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sentencepiece import SentencePieceProcessor

SPACE = "\u2581"
"""How SentencePiece writes a space inside a piece."""
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
"""ModelProto.normalizer_spec (field 3) with add_dummy_prefix (field 3) false: appended to a serialized model it
overrides that one setting, because protobuf merges repeated messages and the last value wins."""


class SentencePieceTokenizer(SpecialTokenizer):
    """A SentencePiece model with special tokens around it."""

    def __init__(
        self,
        path: Path,
        *,
        facts: TokenFacts | None = None,
        appended: Sequence[str] = (),
        legacy: bool = False,
    ) -> None:
        """Load ``path`` and the settings files beside it.

        Args:
            path: the model file; ``save`` writes it under the same name.
            facts: the family's special tokens; the settings files win over them.
            appended: special tokens that follow the model's own pieces, in the order of their ids.
            legacy: put a space after every special token, unless ``tokenizer_config.json`` says otherwise.

        Raises:
            DataError: a file is missing or malformed, or a special token is unknown.
        """
        content = read_bytes(path)
        self._model = _load(content, path)
        self._content = content
        settings = read_settings(path.parent, facts or TokenFacts(bos="<s>", eos="</s>"))
        self._pieces, self._bytes = _read_pieces(self._model, path)
        pieces = len(self._pieces)
        self._unknown = self._model.unk_id()
        specials = {
            piece: number
            for number, piece in enumerate(self._pieces)
            if self._model.is_control(number) or number == self._unknown
        }
        specials.update({token: pieces + place for place, token in enumerate(appended)}, **settings.added)
        super().__init__(
            source=path, settings=settings, specials=specials, vocab_size=pieces, files={path.name: content}
        )
        self._legacy = legacy if settings.legacy is None else settings.legacy
        self._has_dummy_prefix = self._model.normalize("a").startswith(SPACE)
        self._forbidden = frozenset(self._by_id) - {self._unknown}

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of ``ids``, without the space that encoding puts in front of a text."""
        parts = []
        raw = bytearray()
        for number in ids:
            if number in self._bytes:
                raw.append(self._bytes[number])
                continue
            parts.append(raw.decode("utf-8", errors="replace"))
            raw.clear()
            if number in self._by_id:
                parts.append("" if skip_special else self._by_id[number])
            elif 0 <= number < len(self._pieces):
                parts.append(self._pieces[number].replace(SPACE, " "))
        parts.append(raw.decode("utf-8", errors="replace"))
        text = "".join(parts)
        return text[1:] if self._has_dummy_prefix and text.startswith(" ") else text

    def _encode_pieces(self, pieces: Sequence[str | int]) -> list[int]:
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._encode_text(piece, opens=place == 0 or self._legacy)
        return ids

    def _encode_text(self, text: str, *, opens: bool) -> list[int]:
        """Encode plain text; ``opens``: the space in front of a text belongs here."""
        model = self._model if opens else self._inner
        ids: list[int] = model.encode(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        # The model holds a special token as an ordinary piece, and this text spells it.
        parts = self._break(text)
        return [
            number for place, part in enumerate(parts) for number in (model if place == 0 else self._inner).encode(part)
        ]

    def _vocabulary_id(self, token: str) -> int | None:
        number: int = self._model.piece_to_id(token)
        return number if self._pieces[number] == token else None

    @cached_property
    def _inner(self) -> SentencePieceProcessor:
        """The same model without the space in front, for text that follows a special token."""
        return _load(self._content + NO_DUMMY_PREFIX, self._source) if self._has_dummy_prefix else self._model


def _read_pieces(model: SentencePieceProcessor, path: Path) -> tuple[list[str], dict[int, int]]:
    """Return the text of every piece, and the byte that each byte piece (``<0x0A>``) stands for.

    Raises:
        DataError: a piece is not text, or names no byte.
    """
    numbers = range(model.get_piece_size())
    try:
        pieces = [model.id_to_piece(number) for number in numbers]
        return pieces, {number: int(pieces[number][3:-1], 16) for number in numbers if model.is_byte(number)}
    except ValueError as error:
        raise DataError(f"{path}: the SentencePiece model has a malformed piece: {cause(error)}.") from error


def _load(content: bytes, path: Path) -> SentencePieceProcessor:
    """Parse a serialized model.

    Raises:
        DataError: it is not a SentencePiece model.
    """
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(content)
        model.encode("a")
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: is not a SentencePiece model: {cause(error)}.") from error
    if model.get_piece_size() < 1:
        raise DataError(f"{path}: the SentencePiece model has no pieces.")
    return model
