"""Paddle's ``.pdparams`` files: one pickle of numpy arrays by name, read without unpickling."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from .dtypes import STORED
from .source import TensorEntry, TensorSource
from .symbolic_pickle import Blob, Call, Global, read_description

if TYPE_CHECKING:
    from ..registry.facts import Layout

_DTYPES = {
    "f4": "float32", "f8": "float64", "f2": "float16", "u2": "bfloat16", "i8": "int64", "i4": "int32",
    "i2": "int16", "i1": "int8", "u1": "uint8", "b1": "bool",
}  # fmt: skip
"""By numpy's codes. Paddle has no uint16 parameters and writes bfloat16 as uint16, without any other mark."""

_ENCODE = Global("_codecs", "encode")
_RECONSTRUCT = frozenset((("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")))
ALLOWED = frozenset([*_RECONSTRUCT, ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")])
"""All that a dictionary of arrays names, in protocols 2 to 4, written with numpy 1 or 2."""

NAME_TABLE = "StructuredToParameterName@@"
"""Paddle's own parameter names, which depend on creation order and say nothing about the weights."""


@dataclass(frozen=True, slots=True)
class _Array:
    """Where an array's elements lie in the file, and how."""

    data: Blob | bytes
    """The place, or the bytes themselves where they are few."""
    is_text: bool
    """In the file the bytes are UTF-8 of latin-1 characters (protocol 2)."""
    shape: tuple[int, ...]
    dtype: str
    column_major: bool


class _Bounded(io.BufferedReader):
    """A file of which no more bytes are asked than it has: whatever length a damaged one states, memory stays small.

    Mapped instead, the pages that were looked at would count as this process's memory, a whole file of them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


class PaddleFile(TensorSource):
    """One file written by ``paddle.save(state_dict)``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layouts: tuple[Layout, ...] = ("paddlenlp", "hf")
        if path.stat().st_size == 0:
            raise WeightError(f"{path}: is empty.")
        with _Bounded(path) as file:
            content = read_description(file, ALLOWED, str(path))
        if not isinstance(content, dict):
            raise WeightError(f"{path}: does not hold a state dict (arrays by name).")
        content.pop(NAME_TABLE, None)
        if not content:
            raise WeightError(f"{path}: holds no arrays.")
        self._arrays = {name: _array(path, name, node) for name, node in content.items()}
        self.entries = {name: TensorEntry(name, array.shape, array.dtype, path) for name, array in self._arrays.items()}

    def read(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        raw = array.data if isinstance(array.data, bytes) else self._read_blob(name, array.data, array.is_text)
        flat = np.frombuffer(raw, STORED[array.dtype])
        return flat.reshape(array.shape, order="F" if array.column_major else "C")

    def _read_blob(self, name: str, blob: Blob, is_text: bool) -> bytes:
        with self.path.open("rb") as file:
            file.seek(blob.position)
            raw = file.read(blob.stored)
        try:
            raw = raw.decode("utf-8").encode("latin-1") if is_text else raw
        except UnicodeError as error:
            raise WeightError(f"{self.path}: {name}: its data is text that stands for no bytes.") from error
        if len(raw) != blob.size:
            raise WeightError(f"{self.path}: {name}: the file was cut short while it was read.")
        return raw


def _array(path: Path, name: str, node: Any) -> _Array:
    """Read the description of one array: numpy's ``_reconstruct`` call and the state set on it."""
    if not isinstance(node, Call) or (node.function.module, node.function.name) not in _RECONSTRUCT:
        raise WeightError(f"{path}: {name}: is not an array. Save the model's state_dict() alone.")
    if not isinstance(node.state, tuple) or len(node.state) != 5:
        raise WeightError(f"{path}: {name}: the array is not described as numpy does.")
    _, shape, dtype_node, column_major, data = node.state
    dtype = _dtype(path, name, dtype_node)
    is_text = isinstance(data, Call)
    if isinstance(data, Call) and data.function == _ENCODE and len(data.arguments) == 2:
        data = _latin1(data.arguments[0]) if data.arguments[1] == "latin1" else None
    if not isinstance(data, (Blob, bytes)):
        raise WeightError(f"{path}: {name}: the array is not described as numpy does.")
    sizes = shape if isinstance(shape, tuple) else (-1,)
    if len(sizes) > 8 or not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes):
        raise WeightError(f"{path}: {name}: has an impossible shape.")
    needed = math.prod(sizes) * STORED[dtype].itemsize
    held = len(data) if isinstance(data, bytes) else data.size
    if held != needed:
        raise WeightError(f"{path}: {name}: {dtype} {list(sizes)} needs {needed} bytes, the file has {held}.")
    return _Array(data, is_text, sizes, dtype, column_major is True)


def _latin1(text: Any) -> Any:
    """Turn a short text into the bytes that it stands for; a long one is still in the file."""
    try:
        return text.encode("latin-1") if isinstance(text, str) else text
    except UnicodeError:
        return None


def _dtype(path: Path, name: str, node: Any) -> str:
    code = node.arguments[0] if isinstance(node, Call) and node.arguments else None
    dtype = _DTYPES.get(code) if isinstance(code, str) else None
    state = node.state if isinstance(node, Call) else None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
    if dtype is None or order not in ("<", "|", "="):
        raise WeightError(f"{path}: {name}: its element type cannot be read. Re-save it as safetensors.")
    return dtype
