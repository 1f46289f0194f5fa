"""The header of a GGUF file: metadata and tensor table, every count checked against the file before it is used.

The gguf package's own reader makes a numpy object of every token, which takes seconds; a header takes 0.1 s here.

Source: the GGUF specification, github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_AXES = 4


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One row of the tensor table."""

    shape: tuple[int, ...]
    """In numpy's order; the file has it reversed."""
    type_id: int
    offset: int
    """From the start of the data section."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """All of a GGUF file but its weights."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    data_start: int
    file_size: int


def read_header(path: Path) -> GgufHeader:
    """Read the metadata and the tensor table.

    Raises:
        WeightError: the file is no GGUF file, of an unknown version, cut short, or damaged.
    """
    size = path.stat().st_size
    if size < 24:
        raise WeightError(f"{path}: is cut short or not a GGUF file: it has {size} bytes.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        cursor = _Cursor(mapped, size)
        try:
            return _parse(path, cursor)
        except (struct.error, ValueError, KeyError) as error:
            raise WeightError(f"{path}: the GGUF header is damaged near byte {cursor.position}: {error}.") from error


def _parse(path: Path, cursor: _Cursor) -> GgufHeader:
    magic, version = cursor.take(4), cursor.scalar("I")
    if magic != b"GGUF":
        raise WeightError(f"{path}: is not a GGUF file: it begins with {magic!r}.")
    if version not in (2, 3):
        raise WeightError(f"{path}: GGUF version {version} cannot be read, only 2 and 3 (little-endian).")
    num_tensors, num_fields = cursor.scalar("Q"), cursor.scalar("Q")
    metadata: dict[str, Any] = {}
    for _ in range(cursor.counted(num_fields, 12)):
        key = cursor.text()
        if key in metadata:
            raise ValueError(f"the key {key} appears twice")
        metadata[key] = cursor.value(cursor.scalar("I"))
    tensors: dict[str, GgufTensor] = {}
    for _ in range(cursor.counted(num_tensors, 24)):
        name = cursor.text()
        if name in tensors:
            raise ValueError(f"the tensor {name} appears twice")
        tensors[name] = _tensor(cursor)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise ValueError(f"general.alignment is {alignment}")
    return GgufHeader(path, metadata, tensors, -(-cursor.position // alignment) * alignment, cursor.size)


def _tensor(cursor: _Cursor) -> GgufTensor:
    num_axes = cursor.scalar("I")
    if num_axes > _MAX_AXES:
        raise ValueError(f"a tensor has {num_axes} axes")
    shape = tuple(cursor.scalar("Q") for _ in range(num_axes))[::-1]
    return GgufTensor(shape, cursor.scalar("I"), cursor.scalar("Q"))


class _Cursor:
    """A place in the file that moves forward and never past its end."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data = data
        self.size = size
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > self.size - self.position:
            raise ValueError(f"{count} bytes are announced, {self.size - self.position} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8")

    def texts(self, count: int) -> list[str]:
        """Return many texts: the tokens of a vocabulary are most of a header, so this loop calls little."""
        data, position, texts = self.data, self.position, []
        for _ in range(count):
            start = position + 8
            position = start + int.from_bytes(data[position:start], "little")
            if position > self.size:
                raise ValueError(f"a text ends at byte {position}, after the end of the file")
            texts.append(data[start:position].decode("utf-8"))
        self.position = position
        return texts

    def counted(self, count: int, least: int) -> int:
        """Return a count, once that many items of at least ``least`` bytes can follow."""
        if count * least > self.size - self.position:
            raise ValueError(f"{count} items are announced, {self.size - self.position} bytes are left")
        return count

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        item, count = self.scalar("I"), self.scalar("Q")
        if item == _STRING:
            return self.texts(self.counted(count, 8))
        if item not in _SCALARS:
            raise ValueError(f"an array holds items of type {item}")
        code = _SCALARS[item]
        return list(struct.unpack(f"<{count}{code}", self.take(self.counted(count, 1) * struct.calcsize(code))))
