"""GGUF vocabularies rebuilt with the ``tokenizers`` library.

Source: llama.cpp, src/llama-vocab.cpp (token types, pre-tokenizers by name).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

BYTE_LEVEL, SENTENCE_PIECE = "gpt2", "llama"
"""The format's names for the two kinds of BPE, whatever model they belong to."""
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
SPACE = "\u2581"
"""How SentencePiece writes a space inside a piece."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_BPE = (_WORDS % r"\p{N}{1,3}",)
_QWEN2 = (_WORDS % r"\p{N}",)
_DIGITS = (r"\p{N}", _GPT2)
PATTERNS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "jina-es", "jina-de"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "dbrx", "smaug-bpe"), _LLAMA_BPE),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan"), _QWEN2),
}
"""Regular expressions that cut a text before merging, each applied to what the one before has left whole."""
_WHOLE_WORDS = frozenset(("llama3", "llama-v3", "llama-bpe", "falcon3"))
"""Names whose files look a word up whole before they merge, and put the first token before a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a GGUF file says of its tokens."""

    path: Path
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    pattern: str
    space_prefix: bool
    is_sentence_piece: bool
    unknown_id: int | None

    @property
    def adds_bos_by_default(self) -> bool:
        """Whether a text begins with the first token where the file does not say."""
        return self.is_sentence_piece or self.pattern in _WHOLE_WORDS

    def token(self, path: Path, number: int) -> str:
        """Return a token's text by its id.

        Raises:
            DataError: there is no such token.
        """
        if type(number) is not int or not 0 <= number < len(self.tokens):
            raise DataError(f"{path}: the special token {number} is outside the vocabulary of {len(self.tokens)}.")
        return self.tokens[number]

    @property
    def ids(self) -> dict[str, int]:
        """Ids by text; of twins the first."""
        return {token: number for number, token in reversed(list(enumerate(self.tokens)))}


def build_byte_level(vocabulary: Vocabulary) -> Any:
    """Build a byte-level BPE (``gpt2``) from tokens and merges.

    Raises:
        DataError: the pre-tokenizer is unknown, or a merge makes no token.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    patterns = PATTERNS.get(vocabulary.pattern)
    if patterns is None:
        known = ", ".join(PATTERNS)
        raise DataError(
            f"{vocabulary.path}: tokenizer.ggml.pre: {vocabulary.pattern!r} is unknown, and a guess would cut texts "
            f"in the wrong places. Give the original tokenizer with --tokenizer_name_or_path. Known: {known}."
        )
    whole = vocabulary.pattern in _WHOLE_WORDS
    tokenizer = Tokenizer(models.BPE(vocabulary.ids, _split_merges(vocabulary), ignore_merges=whole))
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    _add_special(tokenizer, vocabulary)
    return tokenizer


def build_sentence_piece(vocabulary: Vocabulary) -> Any:
    """Build a SentencePiece BPE (``llama``) from pieces and scores; unknown characters become bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = vocabulary.tokens[vocabulary.unknown_id or 0]
    merges = _merges_by_score(vocabulary)
    model = models.BPE(vocabulary.ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    prefix = [normalizers.Prepend(SPACE)] if vocabulary.space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if vocabulary.space_prefix else []
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    _add_special(tokenizer, vocabulary)
    return tokenizer


def _split_merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return the merges, once each is known to make a token of two others: the library aborts where one does not."""
    ids = vocabulary.ids
    pairs = []
    for line in vocabulary.merges:
        # A token may begin with a space in a few files; the cut is the first space after the first character.
        cut = line.find(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        if cut < 0 or left not in ids or right not in ids or left + right not in ids:
            raise DataError(
                f"{vocabulary.path}: tokenizer.ggml.merges: {line[:60]!r} does not make a token of two others."
            )
        pairs.append((left, right))
    if not pairs:
        raise DataError(f"{vocabulary.path}: tokenizer.ggml.merges is missing, without which texts cannot be cut.")
    return pairs


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return every way to join two pieces into a third, best score of the result first.

    SentencePiece looks for the pair whose result scores highest, ``tokenizers`` for the pair that is listed first.
    """
    ids = vocabulary.ids
    pairs = [
        (-vocabulary.scores[number], ids[left], ids[right], left, right)
        for token, number in ids.items()
        for left, right in _halves(token)
        if left in ids and right in ids
    ]
    return [(left, right) for *_, left, right in sorted(pairs)]


def _halves(token: str) -> Iterator[tuple[str, str]]:
    return ((token[:cut], token[cut:]) for cut in range(1, len(token)))


def _add_special(tokenizer: Any, vocabulary: Vocabulary) -> None:
    """Mark control tokens as special, and keep tokens of users whole; all of them have their ids already."""
    from tokenizers import AddedToken

    added = [
        AddedToken(token, special=kind != USER_DEFINED, normalized=False)
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
        if token and (kind in (CONTROL, USER_DEFINED) or (kind == UNKNOWN and vocabulary.is_sentence_piece))
    ]
    tokenizer.add_tokens(added)
    ids = vocabulary.ids
    for token in added:
        if tokenizer.token_to_id(token.content) != ids[token.content]:
            raise DataError(f"{vocabulary.path}: the special token {token.content!r} does not keep its id.")
