"""Safetensors files, read tensor by tensor, after the header has been checked against the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from .dtypes import STORED
from .source import TensorEntry, TensorSource

if TYPE_CHECKING:
    from ..registry.facts import Layout

MAX_HEADER = 100_000_000
"""Bytes; the limit of the format's own reader."""

NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class SafetensorsFile(TensorSource):
    """One ``.safetensors`` file.

    Files are read, not mapped: mapped pages would count as this process's memory until the whole model is there twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start, header = _read_header(path)
        metadata = header.pop("__metadata__", {})
        from_paddle = isinstance(metadata, dict) and metadata.get("format") in ("pd", "np")
        # PaddleNLP writes this format with its own names as well, and marks it so.
        self.layouts: tuple[Layout, ...] = ("paddlenlp", "hf") if from_paddle else ("hf", "paddlenlp")
        self._offsets = _check_extents(path, header, path.stat().st_size - self._start)
        self.entries = {
            name: TensorEntry(name, tuple(header[name]["shape"]), NAMES[header[name]["dtype"]], path)
            for name in self._offsets
        }

    def read(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        count = math.prod(entry.shape)
        offset = self._start + self._offsets[name]
        flat = np.fromfile(self.path, dtype=STORED[entry.dtype], count=count, offset=offset)
        if flat.size != count:
            raise WeightError(f"{self.path}: {name}: the file was cut short while it was read.")
        return flat.reshape(entry.shape)


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where the data begins, and the header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise WeightError(f"{path}: is cut short or not a safetensors file: header of {length} bytes in {size}.")
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_refuse_twins)
    except (ValueError, RecursionError) as error:
        raise WeightError(f"{path}: the header is damaged: {error}.") from error
    if not isinstance(header, dict):
        raise WeightError(f"{path}: the header is damaged: not an object.")
    return 8 + length, header


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key appears twice")
    return content


def _check_extents(path: Path, header: dict[str, Any], room: int) -> dict[str, int]:
    """Return each tensor's offset, once all of them are known to tile the data without gaps or overlaps."""
    extents = sorted((*_extent(path, name, described), name) for name, described in header.items())
    end = 0
    for start, stop, name in extents:
        if start != end:
            what = "overlaps the tensor before it" if start < end else "leaves a gap before it"
            raise WeightError(f"{path}: {name}: at offset {start} it {what}, which ends at {end}.")
        end = stop
    if end != room:
        what = "is cut short" if end > room else "has bytes that belong to no tensor"
        raise WeightError(f"{path}: {what}: the header describes {end} bytes of data, the file has {room}.")
    return {name: start for start, _, name in extents}


def _extent(path: Path, name: str, described: Any) -> tuple[int, int]:
    """Return a tensor's first and last offset, checked against its dtype and shape."""
    fields = described if isinstance(described, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise WeightError(f"{path}: {name}: shape {shape} and offsets {offsets} are not lists of sizes.")
    if not isinstance(dtype, str) or dtype not in NAMES:
        raise WeightError(f"{path}: {name}: dtype {dtype} cannot be read. Known: {', '.join(NAMES)}.")
    needed = math.prod(shape) * STORED[NAMES[dtype]].itemsize
    if offsets[1] - offsets[0] != needed:
        raise WeightError(f"{path}: {name}: {dtype} {shape} needs {needed} bytes, the offsets {offsets} say otherwise.")
    return offsets[0], offsets[1]


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(type(n) is int and 0 <= n < 1 << 62 for n in value)
