"""Byte-level BPE from ``vocab.json`` and ``merges.txt`` (GPT-2, OPT, Qwen 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DataError
from .files import cause, parse_json_object, read_bytes
from .json_file import JsonTokenizer
from .settings import TokenFacts, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""How GPT-2 cuts text before merging. Source: openai/gpt-2 encoder.py."""


class BpeFilesTokenizer(JsonTokenizer):
    """The vocabulary and merges of a byte-level BPE, with special tokens around them."""

    def __init__(
        self,
        directory: Path,
        *,
        facts: TokenFacts | None = None,
        pattern: str = GPT2_PATTERN,
        specials: Sequence[str] = (),
        normalize: bool = False,
    ) -> None:
        """Load ``vocab.json`` and ``merges.txt`` and the settings files beside them.

        Args:
            directory: the folder that holds the files.
            facts: the family's special tokens; the settings files win over them.
            pattern: regular expression that cuts text before merging.
            specials: special tokens: with their id in the vocabulary, or after it in order.
            normalize: bring text into Unicode NFC first.

        Raises:
            DataError: a file is missing or malformed, or a special token is unknown.
        """
        vocabulary_path, merges_path = directory / "vocab.json", directory / "merges.txt"
        files = {"vocab.json": read_bytes(vocabulary_path), "merges.txt": read_bytes(merges_path)}
        vocabulary = parse_json_object(files["vocab.json"], vocabulary_path)
        for token, number in vocabulary.items():
            if type(number) is not int or not 0 <= number < 2**31:
                raise DataError(f"{vocabulary_path}: {token!r}: {number!r} is not a token id.")
        settings = read_settings(directory, facts or TokenFacts())
        size = max(vocabulary.values(), default=-1) + 1
        fresh = [token for token in specials if token not in vocabulary and token not in settings.added]
        ids = {
            **{token: vocabulary[token] for token in specials if token in vocabulary},
            **settings.added,
            **{token: size + place for place, token in enumerate(fresh)},
        }
        content = _build(
            vocabulary, _parse_merges(files["merges.txt"], merges_path), pattern, normalize, ids, merges_path
        )
        self._setup(content, settings, source=vocabulary_path, files=files)


def _parse_merges(content: bytes, path: Path) -> list[tuple[str, str]]:
    """Read the lines of ``merges.txt``.

    Raises:
        DataError: a line is not two tokens; the text gives its number.
    """
    merges = []
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text: {cause(error)}.") from error
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise DataError(f"{path}: line {number}: {line[:60]!r} is not two tokens with a space between.")
        merges.append((parts[0], parts[1]))
    return merges


def _build(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    pattern: str,
    normalize: bool,
    specials: dict[str, int],
    path: Path,
) -> bytes:
    """Return the ``tokenizer.json`` that says the same as the files.

    Raises:
        DataError: the merges speak of tokens that the vocabulary lacks, or the ids of the special tokens leave a gap.
    """
    import tokenizers
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

    try:
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:
        raise DataError(f"{path}: does not fit vocab.json: {cause(error)}.") from error
    if normalize:
        tokenizer.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token, number in sorted(specials.items(), key=lambda item: item[1]):
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        if tokenizer.token_to_id(token) != number:
            raise DataError(
                f"{path.parent}: the special token {token!r} should have id {number}, but the vocabulary "
                f"and the tokens before it end at {tokenizer.get_vocab_size()}."
            )
    return str(tokenizer.to_str()).encode()
