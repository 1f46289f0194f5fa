"""Named arrays in safetensors files, with an index of which slice of which tensor lies where.

Written piece by piece, so that no second copy of the state is made, and hashed on the way. Nothing here imports Paddle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ..errors import CheckpointError
from ..parallel.slices import Part, Slice
from .storage import Storage, WrittenFile

DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredSlice:
    """A block of a tensor in one file."""

    file: str
    start: tuple[int, ...]
    shape: tuple[int, ...]
    key: str = ""
    """Its name in the file, where that is not the tensor's own: a file may hold several blocks of one tensor."""

    @property
    def block(self) -> Slice:
        """The same as a slice of the tensor."""
        return Slice.whole(self.shape).seen_from(tuple(-start for start in self.start))


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One logical tensor: its whole shape, and the slices that cover it."""

    shape: tuple[int, ...]
    dtype: str
    slices: tuple[StoredSlice, ...]


@dataclass(frozen=True, slots=True)
class OwnedPart:
    """What one rank writes of a logical tensor, out of the array that it has."""

    part: Part
    owned: tuple[bool, ...]
    """For each slice of ``part``."""

    def blocks(self) -> list[tuple[Slice, Slice]]:
        """Return the blocks to write: where they lie in the array, and where in the logical tensor."""
        pairs = zip(self.part.blocks(), self.owned, strict=True)
        is_empty = 0 in self.part.shape
        return [(here, there) for (here, there), is_owned in pairs if is_owned and (there.size or is_empty)]


def owned_blocks(
    file: str, arrays: Mapping[str, np.ndarray], places: Mapping[str, OwnedPart]
) -> tuple[dict[str, np.ndarray], dict[str, IndexEntry]]:
    """Return what one rank writes into a file, by the names there, and the index of it.

    Args:
        file: name of the file.
        arrays: what the rank has, by logical name.
        places: which part of the logical tensor each array is; all of it where a name is missing.
    """
    written: dict[str, np.ndarray] = {}
    index: dict[str, IndexEntry] = {}
    for name, array in arrays.items():
        place = places.get(name) or OwnedPart(Part.whole(array.shape), (True,))
        stored: list[StoredSlice] = []
        for here, there in place.blocks():
            key = f"{name}#{len(stored)}" if stored else ""
            written[key or name] = array[here.index()]
            stored.append(StoredSlice(file, there.start, there.shape, key))
        if stored:
            index[name] = IndexEntry(place.part.shape, str(array.dtype), tuple(stored))
    return written, index


def merged(indexes: Iterable[Mapping[str, IndexEntry]]) -> dict[str, IndexEntry]:
    """Return one index of what all ranks have written."""
    whole: dict[str, IndexEntry] = {}
    for index in indexes:
        for name, entry in index.items():
            known = whole.get(name)
            whole[name] = entry if known is None else replace(known, slices=known.slices + entry.slices)
    return whole


def write_tensors(storage: Storage, path: Path, arrays: Mapping[str, np.ndarray]) -> WrittenFile:
    """Write one safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pd"}}
    offset = 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {"dtype": DTYPES[str(array.dtype)], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little")
        yield text
        for array in arrays.values():
            yield np.ascontiguousarray(array).reshape(-1).data

    return storage.write(path, chunks())


def index_to_json(index: Mapping[str, IndexEntry]) -> dict[str, Any]:
    """Return the index as it stands in ``index.json``."""
    return {name: asdict(entry) for name, entry in index.items()}


def index_from_json(fields: Mapping[str, Any]) -> dict[str, IndexEntry]:
    """Read what ``index_to_json`` wrote."""
    return {
        name: IndexEntry(
            tuple(entry["shape"]),
            entry["dtype"],
            tuple(
                StoredSlice(piece["file"], tuple(piece["start"]), tuple(piece["shape"]), piece.get("key", ""))
                for piece in entry["slices"]
            ),
        )
        for name, entry in fields.items()
    }


class TensorReader:
    """The logical tensors of one directory, put together from their slices as they are asked for."""

    def __init__(self, directory: Path, index: Mapping[str, IndexEntry]) -> None:
        self.directory = directory
        self.index = index

    def read(self, name: str, wanted: Slice | None = None) -> np.ndarray:
        """Return a tensor, or a block of it; nothing else is read.

        Raises:
            CheckpointError: the slices in the files do not cover it.
        """
        entry = self.index[name]
        wanted = wanted or Slice.whole(entry.shape)
        found = np.empty(wanted.shape, dtype=entry.dtype)
        covered = 0
        for piece in entry.slices:
            shared = piece.block.common(wanted)
            if shared is None:
                continue
            with safe_open(self.directory / piece.file, framework="numpy") as file:
                found[shared.seen_from(wanted.start).index()] = (
                    file.get_tensor(piece.key or name)
                    if shared == piece.block
                    else file.get_slice(piece.key or name)[shared.seen_from(piece.start).index()]
                )
            covered += shared.size
        if covered != found.size:
            raise CheckpointError(f"{self.directory}: tensor {name}: slices cover {covered} of {found.size} values")
        return found

    def read_part(self, name: str, part: Part) -> np.ndarray:
        """Return what a rank holds of a tensor.

        Raises:
            CheckpointError: the slices in the files do not cover it.
        """
        if len(part.slices) == 1:
            return self.read(name, part.slices[0])
        return np.concatenate([self.read(name, block) for block in part.slices], axis=part.dim)
