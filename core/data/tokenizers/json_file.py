"""``tokenizer.json`` of Hugging Face's ``tokenizers``."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import TYPE_CHECKING

from ...errors import DataError
from .files import cause, parse_json_object, read_bytes
from .settings import Settings, TokenFacts, read_settings
from .special import SpecialTokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import tokenizers

FILE = "tokenizer.json"


class JsonTokenizer(SpecialTokenizer):
    """A ``tokenizer.json`` with the settings files beside it."""

    def __init__(self, path: Path, *, facts: TokenFacts | None = None) -> None:
        """Load ``path`` (a ``tokenizer.json``, or the folder that holds one) and the settings files beside it.

        Raises:
            DataError: a file is missing or malformed, or a special token is unknown.
        """
        path = path / FILE if path.is_dir() else path
        content = read_bytes(path)
        settings = read_settings(path.parent, facts or TokenFacts())
        self._setup(content, settings, source=path, files={FILE: content})

    @classmethod
    def from_content(
        cls,
        content: bytes,
        *,
        source: Path,
        facts: TokenFacts,
        files: Mapping[str, bytes] | None = None,
    ) -> JsonTokenizer:
        """Make one from the text of a ``tokenizer.json`` that lies in no folder (out of a GGUF file).

        Args:
            content: the JSON.
            source: the file it came from, for messages.
            facts: the special tokens.
            files: what ``save`` writes; default: ``content`` as ``tokenizer.json``.
        """
        tokenizer = cls.__new__(cls)
        files = {FILE: content} if files is None else files
        tokenizer._setup(content, Settings(facts=facts), source=source, files=files)
        return tokenizer

    def _setup(self, content: bytes, settings: Settings, *, source: Path, files: Mapping[str, bytes]) -> None:
        model = parse_json_object(content, source).get("model")
        self._content = content
        self._full = _load(content, source)
        self._vocabulary: dict[str, int] = self._full.get_vocab(with_added_tokens=True)
        added = self._full.get_added_tokens_decoder()
        specials = {token.content: number for number, token in added.items() if token.special}
        for token, number in settings.added.items():
            if self._full.id_to_token(number) != token:
                raise DataError(f"{source}: has no token {token!r} with id {number}, which the files beside it name.")
        super().__init__(
            source=source,
            settings=settings,
            specials=specials,
            vocab_size=max(self._vocabulary.values(), default=-1) + 1,
            files=files,
        )
        # As in transformers: a token with a role is matched in text, whether or not the file calls it special.
        self._full.add_special_tokens([token for token in self.special_tokens if token not in specials])
        if settings.facts.prefix is None:
            self._prefix = self._template_prefix()
        unknown = model.get("unk_token") if isinstance(model, dict) else None
        self._forbidden = frozenset(number for number, token in self._by_id.items() if token != unknown)

    def encode(
        self, text: str, *, allow_special: bool = False, plain_spans: Sequence[tuple[int, int]] = ()
    ) -> list[int]:
        """Return the ids of ``text``; see ``Tokenizer.encode``."""
        if allow_special:
            if not any(self._spells_special(text[start:end]) for start, end in plain_spans):
                return self._ids(self._full, text)
        else:
            ids = self._ids(self._full, text)
            if self._forbidden.isdisjoint(ids):
                return ids
        return super().encode(text, allow_special=allow_special, plain_spans=plain_spans)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of ``ids``; bytes that are not whole characters become U+FFFD."""
        text: str = self._full.decode([number for number in ids if number >= 0], skip_special_tokens=skip_special)
        return text

    def _encode_pieces(self, pieces: Sequence[str | int]) -> list[int]:
        """Encode with special tokens under secret names, so that no text can spell one."""
        masked, names, ids_by_masked = self._masked
        text = "".join(piece if isinstance(piece, str) else names[piece] for piece in pieces)
        ids = [ids_by_masked.get(number, number) for number in self._ids(masked, text)]
        expected = [piece for piece in pieces if isinstance(piece, int)]
        if [number for number in ids if number in self._forbidden] == expected:
            return ids
        # The vocabulary holds a special token as an ordinary piece, and some text spells it.
        return [
            number for piece in pieces for number in ([piece] if isinstance(piece, int) else self._encode_broken(piece))
        ]

    def _encode_broken(self, text: str) -> list[int]:
        masked, _, ids_by_masked = self._masked
        return [ids_by_masked.get(number, number) for part in self._break(text) for number in self._ids(masked, part)]

    def _ids(self, tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _spells_special(self, text: str) -> bool:
        """Whether any special token could come out of ``text``, whatever the normalizer does to it."""
        return not self._forbidden.isdisjoint(self._ids(self._full, text)) or bool(
            self._pattern and self._pattern.search(text)
        )

    def _vocabulary_id(self, token: str) -> int | None:
        return self._vocabulary.get(token)

    def _template_prefix(self) -> list[int]:
        """Return the ids that the file's post-processor puts before a text."""
        bare, framed = self._ids(self._full, "a"), self._full.encode("a", add_special_tokens=True).ids
        for start in range(len(framed) - len(bare) + 1):
            if framed[start : start + len(bare)] == bare:
                return list(framed[:start])
        return []

    @cached_property
    def _masked(self) -> tuple[tokenizers.Tokenizer, dict[int, str], dict[int, int]]:
        """The tokenizer that knows special tokens by secret names only; those names by id; true ids by masked ids."""
        from tokenizers import AddedToken

        nonce = secrets.token_hex(8)
        known = self._full.get_added_tokens_decoder()
        names = {number: f"\U000f0000{nonce}.{number}\U000f0001" for number in self._by_id}
        masked = _load(self._content, self._source)
        masked.encode_special_tokens = True
        for number, name in names.items():
            old = known.get(number)
            strips = {"lstrip": old.lstrip, "rstrip": old.rstrip} if old is not None else {}
            masked.add_tokens([AddedToken(name, normalized=False, special=False, **strips)])
        vocabulary = masked.get_vocab(with_added_tokens=True)
        return masked, names, {vocabulary[name]: number for number, name in names.items()}


def _load(content: bytes, path: Path) -> tokenizers.Tokenizer:
    """Parse a ``tokenizer.json``, without the truncation and padding that some of them ask for.

    Raises:
        DataError: it is malformed.
    """
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode("a", add_special_tokens=True)
    except BaseException as error:  # the library reports some malformed files by a Rust panic, not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise DataError(
            f"{path}: is not a tokenizer that this version of `tokenizers` reads: {cause(error)}."
        ) from error
    return tokenizer
