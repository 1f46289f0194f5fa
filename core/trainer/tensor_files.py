"""Named arrays in safetensors files, with an index of which slice of which tensor lies where.

Written piece by piece, so that no second copy of the state is made, and hashed on the way. Nothing here imports Paddle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ..errors import CheckpointError
from .storage import Storage, WrittenFile

DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slice:
    """A block of a tensor in one file, under the tensor's own name."""

    file: str
    start: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One logical tensor: its whole shape, and the slices that cover it."""

    shape: tuple[int, ...]
    dtype: str
    slices: tuple[Slice, ...]


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


def whole_tensors(file: str, arrays: Mapping[str, np.ndarray]) -> dict[str, IndexEntry]:
    """Return the index of a file that holds whole tensors."""
    return {
        name: IndexEntry(array.shape, str(array.dtype), (Slice(file, (0,) * array.ndim, array.shape),))
        for name, array in arrays.items()
    }


def index_to_json(index: Mapping[str, IndexEntry]) -> dict[str, Any]:
    """Return the index as it stands in ``index.json``."""
    return {name: asdict(entry) for name, entry in index.items()}


def index_from_json(fields: Mapping[str, Any]) -> dict[str, IndexEntry]:
    """Read what ``index_to_json`` wrote."""
    return {
        name: IndexEntry(
            tuple(entry["shape"]),
            entry["dtype"],
            tuple(Slice(piece["file"], tuple(piece["start"]), tuple(piece["shape"])) for piece in entry["slices"]),
        )
        for name, entry in fields.items()
    }


class TensorReader:
    """The logical tensors of one directory, put together from their slices as they are asked for."""

    def __init__(self, directory: Path, index: Mapping[str, IndexEntry]) -> None:
        self.directory = directory
        self.index = index

    def read(self, name: str) -> np.ndarray:
        """Return one whole tensor.

        Raises:
            CheckpointError: its slices do not cover it.
        """
        entry = self.index[name]
        whole = np.empty(entry.shape, dtype=entry.dtype)
        covered = 0
        for piece in entry.slices:
            with safe_open(self.directory / piece.file, framework="numpy") as file:
                block = tuple(
                    slice(start, start + length) for start, length in zip(piece.start, piece.shape, strict=True)
                )
                whole[block] = file.get_tensor(name)
            covered += int(np.prod(piece.shape))
        if covered != whole.size:
            raise CheckpointError(f"{self.directory}: tensor {name}: slices cover {covered} of {whole.size} values")
        return whole
