"""Token files: documents as token ids, read through the page cache.

Three layouts are read: Megatron's ``.bin``/``.idx`` (``MMIDIDX``), its older lazy one (``TNTIDX``), and PaddleNLP's
``_ids.npy``/``_idx.npz``. The first one is written (``token_writer.py``). In all of them every length counts as one
document.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError

MMAP_MAGIC = b"MMIDIDX\x00\x00"
LAZY_MAGIC = b"TNTIDX\x00\x00"
DTYPES: dict[int, type[np.generic]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
    9: np.uint32,
    10: np.uint64,
}
"""Codes of integer types in ``.idx``; 6 and 7 are floats, which no token file holds."""
SUFFIXES = (".idx", "_idx.npz")


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The documents of one corpus."""

    prefix: Path
    """Path without the suffix, for messages."""
    tokens: np.ndarray
    """All token ids, memory-mapped: integers [tokens]."""
    starts: np.ndarray
    """int64 [documents]: where each document begins in ``tokens``."""
    sizes: np.ndarray
    """int64 [documents]: tokens of each document."""

    def read(self, document: int, first: int, count: int) -> np.ndarray:
        """Return up to ``count`` tokens of a document from its token ``first`` on, as int64."""
        start = int(self.starts[document])
        stop = min(first + count, int(self.sizes[document]))
        return self.tokens[start + first : start + stop].astype(np.int64)


def open_token_file(prefix: Path) -> TokenFile:
    """Open the token file that ``<prefix>.idx`` or ``<prefix>_idx.npz`` belongs to.

    Raises:
        DataError: files are missing, malformed, or do not fit each other.
    """
    if Path(f"{prefix}_idx.npz").is_file():
        return _checked(_open_legacy(prefix))
    index = Path(f"{prefix}.idx")
    try:
        content = index.read_bytes()
    except OSError as error:
        raise DataError(
            f"{prefix}: is no token file: neither {index.name} nor {prefix.name}_idx.npz can be read "
            f"({error.strerror or error}). `--task data` makes token files of text."
        ) from error
    try:
        if content.startswith(MMAP_MAGIC):
            return _checked(_open_mmap(prefix, content))
        if content.startswith(LAZY_MAGIC):
            return _checked(_open_lazy(prefix, content))
    except (struct.error, ValueError) as error:
        raise DataError(f"{index}: is cut short or damaged: {error}.") from error
    raise DataError(f"{index}: is not the index of a token file (it begins with {content[:9]!r}).")


def find_prefixes(folder: Path) -> list[Path]:
    """Return the prefixes of all token files in ``folder``, by name."""
    names = {
        path.name.removesuffix(suffix) for path in folder.iterdir() for suffix in SUFFIXES if path.name.endswith(suffix)
    }
    return [folder / name for name in sorted(names)]


def _open_mmap(prefix: Path, content: bytes) -> TokenFile:
    """Read an ``MMIDIDX`` index: version u64, dtype code u8, sizes u64, documents u64; then the arrays."""
    version, code, num_sizes, num_documents = struct.unpack_from("<QBQQ", content, len(MMAP_MAGIC))
    _check_version(prefix, version)
    at = len(MMAP_MAGIC) + 25
    expected = at + num_sizes * 12 + num_documents * 8
    if len(content) != expected:
        raise ValueError(f"it has {len(content)} bytes where its header says {expected}")
    sizes = np.frombuffer(content, dtype="<i4", count=num_sizes, offset=at).astype(np.int64)
    pointers = np.frombuffer(content, dtype="<i8", count=num_sizes, offset=at + num_sizes * 4)
    tokens = _map_tokens(prefix, code)
    return TokenFile(prefix, tokens, pointers // tokens.itemsize, sizes)


def _open_lazy(prefix: Path, content: bytes) -> TokenFile:
    """Read a ``TNTIDX`` index; its offsets count elements."""
    header = struct.unpack_from("<6Q", content, len(LAZY_MAGIC))
    version, code, element_size, num_items, num_sizes, num_documents = header
    _check_version(prefix, version)
    at = len(LAZY_MAGIC) + 48
    expected = at + 16 * (num_items + 1) + 4 * num_sizes + 8 * num_documents
    if len(content) != expected:
        raise ValueError(f"it has {len(content)} bytes where its header says {expected}")
    offsets = np.frombuffer(content, dtype="<i8", count=num_items + 1, offset=at + 8 * (num_items + 1))
    tokens = _map_tokens(prefix, code)
    if tokens.itemsize != element_size:
        raise ValueError(f"it says {element_size} bytes a token for dtype code {code}")
    return TokenFile(prefix, tokens, offsets[:-1], np.diff(offsets))


def _open_legacy(prefix: Path) -> TokenFile:
    """Read ``lens`` of ``_idx.npz`` and map ``_ids.npy``."""
    index, ids = Path(f"{prefix}_idx.npz"), Path(f"{prefix}_ids.npy")
    try:
        with np.load(index, allow_pickle=False) as arrays:
            sizes = arrays["lens"].astype(np.int64)
        tokens = np.load(ids, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged zip file raises whatever its damaged part leads to
        raise DataError(f"{prefix}: {index.name} and {ids.name} cannot be read: {error}.") from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or sizes.ndim != 1:
        raise DataError(f"{ids}: must be one row of integers, not {tokens.dtype} {list(tokens.shape)}.")
    return TokenFile(prefix, tokens, np.cumsum(sizes) - sizes, sizes)


def _check_version(prefix: Path, version: int) -> None:
    if version != 1:
        raise DataError(f"{prefix}.idx: version {version} of the layout is not known, only version 1.")


def _map_tokens(prefix: Path, code: int) -> np.ndarray:
    path = Path(f"{prefix}.bin")
    if code not in DTYPES:
        raise DataError(f"{prefix}.idx: dtype code {code} is not an integer type.")
    try:
        if path.stat().st_size == 0:
            return np.zeros(0, dtype=DTYPES[code])
        return np.memmap(path, dtype=DTYPES[code], mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from error


def _checked(file: TokenFile) -> TokenFile:
    """Refuse an index that reaches beyond its tokens."""
    if len(file.sizes) and (
        int(file.sizes.min()) < 0
        or int(file.starts.min()) < 0
        or int((file.starts + file.sizes).max()) > len(file.tokens)
    ):
        raise DataError(
            f"{file.prefix}: its index speaks of more tokens than its data holds ({len(file.tokens)}). "
            "One of the two files is cut short, or they are not of one corpus."
        )
    return file
