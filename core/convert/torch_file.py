"""PyTorch's ``.bin`` (zip) files, read without torch and without running anything that they hold."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from .dtypes import STORED
from .source import TensorEntry, TensorSource
from .symbolic_pickle import Call, Global, Persistent, read_description

if TYPE_CHECKING:
    from ..registry.facts import Layout

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_REBUILD = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
ALLOWED = frozenset([("collections", "OrderedDict"), _REBUILD, _PARAMETER, *(("torch", name) for name in _STORAGES)])
"""All that a state dict of plain tensors names."""

_MAX_PICKLE = 1 << 26
"""Bytes of ``data.pkl``, which holds names and shapes only."""


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor as torch stores it: strides over a storage, counted in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def extent(self) -> int:
        """Elements of the storage up to the last one that the view touches."""
        if not all(self.shape):
            return self.offset
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.offset + last + 1


class TorchFile(TensorSource):
    """One file written by ``torch.save(state_dict)``, torch 1.6 or newer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layouts: tuple[Layout, ...] = ("hf",)
        try:
            with zipfile.ZipFile(path) as archive:
                self._root = _find_root(path, archive)
                content = _read_state_dict(path, archive, self._root)
                self._views = {name: _view(path, name, node) for name, node in content.items()}
                for name, view in self._views.items():
                    self._check_storage(archive, name, view)
        except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
            message = (
                f"is no zip archive: damaged, or written by torch before 1.6 ({error}). Re-save it as safetensors."
            )
            raise WeightError(f"{path}: {message}") from error
        self.entries = {name: TensorEntry(name, view.shape, view.dtype, path) for name, view in self._views.items()}

    def read(self, name: str) -> np.ndarray:
        view = self._views[name]
        dtype = STORED[view.dtype]
        try:
            with zipfile.ZipFile(self.path) as archive:
                raw = archive.read(f"{self._root}data/{view.storage}")
        except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
            raise WeightError(f"{self.path}: {name}: the bytes are damaged: {error}.") from error
        flat = np.frombuffer(raw, dtype, count=len(raw) // dtype.itemsize)[view.offset :]
        steps = [stride * dtype.itemsize for stride in view.strides]
        return np.lib.stride_tricks.as_strided(flat, view.shape, steps, writeable=False)

    def _check_storage(self, archive: zipfile.ZipFile, name: str, view: _View) -> None:
        try:
            stored = archive.getinfo(f"{self._root}data/{view.storage}")
        except KeyError as error:
            raise WeightError(f"{self.path}: {name}: its storage {view.storage!r} is missing.") from error
        if stored.compress_type != zipfile.ZIP_STORED:
            raise WeightError(f"{self.path}: {name}: its storage is compressed, which torch never does; refused.")
        if view.extent * STORED[view.dtype].itemsize > stored.file_size:
            raise WeightError(f"{self.path}: {name}: shape {list(view.shape)} reaches outside its storage.")


def _find_root(path: Path, archive: zipfile.ZipFile) -> str:
    """Return the folder inside the archive that holds ``data.pkl``, with its slash."""
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise WeightError(f"{path}: is a zip archive, but not torch's: it holds {len(roots)} data.pkl.")
    order = f"{roots[0]}byteorder"
    if order in names and archive.read(order) != b"little":
        raise WeightError(f"{path}: was written on a big-endian machine. Re-save it as safetensors.")
    return roots[0]


def _read_state_dict(path: Path, archive: zipfile.ZipFile, root: str) -> dict[str, Any]:
    if archive.getinfo(f"{root}data.pkl").file_size > _MAX_PICKLE:
        raise WeightError(f"{path}: data.pkl is larger than {_MAX_PICKLE} bytes, too large for names and shapes.")
    content = read_description(io.BytesIO(archive.read(f"{root}data.pkl")), ALLOWED, str(path))
    if isinstance(content, Call) and content.function == Global("collections", "OrderedDict"):
        content = content.items
    if not isinstance(content, dict) or not content:
        raise WeightError(f"{path}: does not hold a state dict (tensors by name).")
    return content


def _view(path: Path, name: str, node: Any) -> _View:
    """Read the description of one tensor."""
    if isinstance(node, Call) and (node.function.module, node.function.name) == _PARAMETER and node.arguments:
        node = node.arguments[0]
    if not isinstance(node, Call) or (node.function.module, node.function.name) != _REBUILD or len(node.arguments) < 4:
        raise WeightError(f"{path}: {name}: is not a tensor. Save the model's state_dict() alone.")
    reference, offset, shape, strides = node.arguments[:4]
    key = reference.key if isinstance(reference, Persistent) else ()
    if not isinstance(key, tuple) or len(key) != 5 or not isinstance(key[1], Global) or not isinstance(key[2], str):
        raise WeightError(f"{path}: {name}: does not say where its data lies.")
    if not _are_sizes((offset,)) or not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        raise WeightError(f"{path}: {name}: has an impossible shape, stride or offset.")
    dtype = _STORAGES.get(key[1].name)
    if dtype is None:
        raise WeightError(f"{path}: {name}: its storage has no type.")
    if len(shape) > 8 or math.prod(shape) >= 1 << 62:
        raise WeightError(f"{path}: {name}: has an impossible shape, stride or offset.")
    return _View(key[2], offset, shape, strides, dtype)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(size) is int and 0 <= size < 1 << 62 for size in values)
