"""Safetensors files written tensor by tensor; the format's own library wants a whole shard in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .dtypes import STORED
from .safetensors_file import NAMES

if TYPE_CHECKING:
    from .transforms import Shape

_CODES = {name: code for code, name in NAMES.items()}


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that will be written."""

    name: str
    shape: Shape
    dtype: str

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * STORED[self.dtype].itemsize


def cut_into_shards(tensors: Sequence[Planned], limit: int) -> list[list[Planned]]:
    """Deal tensors out, in order, to files of at most ``limit`` bytes; a larger tensor has a file of its own."""
    shards: list[list[Planned]] = [[]]
    room = limit
    for tensor in tensors:
        if tensor.size > room and shards[-1]:
            shards.append([])
            room = limit
        shards[-1].append(tensor)
        room -= tensor.size
    return shards


def write_shards(
    directory: Path, tensors: Sequence[Planned], read: Callable[[str], np.ndarray], *, max_bytes: int
) -> None:
    """Write ``model.safetensors``, or numbered shards with their index, as Hugging Face names them.

    Args:
        directory: where the files go.
        tensors: in the order in which they are read.
        read: returns the stored elements of a tensor by name; called once each, in order.
        max_bytes: largest file.
    """
    shards = cut_into_shards(tensors, max_bytes)
    if len(shards) == 1:
        _write_file(directory / "model.safetensors", shards[0], read)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(directory / name, shard, read)
        weight_map.update({tensor.name: name for tensor in shard})
    metadata = {
        "total_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "total_size": sum(tensor.size for tensor in tensors),
    }
    index = {"metadata": metadata, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(path: Path, tensors: Sequence[Planned], read: Callable[[str], np.ndarray]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        extent = [offset, offset + tensor.size]
        header[tensor.name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": extent}
        offset += tensor.size
    raw = json.dumps(header, separators=(",", ":")).encode("utf-8")
    raw += b" " * (-len(raw) % 8)  # data begins at a multiple of 8, so that readers can map it
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in tensors:
            array = read(tensor.name)
            assert array.shape == tensor.shape and array.dtype == STORED[tensor.dtype], f"{tensor} is not {array.shape}"
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
