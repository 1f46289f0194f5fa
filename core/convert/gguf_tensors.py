"""GGUF weights, one tensor at a time; quantized ones are expanded to float32 by the gguf package."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightError
from .dtypes import STORED
from .gguf_header import GgufTensor, read_header
from .source import TensorEntry, TensorSource

if TYPE_CHECKING:
    from ..registry.facts import Layout

_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_CHUNK = 1 << 18
"""Weights expanded at once: the package's temporaries stay in the processor's cache."""


def require_gguf() -> Any:
    """Import the gguf package, or say how to install it."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise WeightError('GGUF files need the gguf package. Run: pip install "llm-run[gguf]"') from error
    return gguf


class GgufFile(TensorSource):
    """One ``.gguf`` file."""

    def __init__(self, path: Path) -> None:
        self._gguf = require_gguf()
        self.path = path
        self.layouts: tuple[Layout, ...] = ("gguf",)
        self._header = read_header(path)
        num_files = self._header.metadata.get("split.count", 1)
        if num_files > 1:
            raise WeightError(f"{path}: is one of {num_files} parts. Join them with llama-gguf-split --merge.")
        self._sizes = {name: self._stored_size(name, tensor) for name, tensor in self._header.tensors.items()}
        self._check_overlaps()
        self.entries = {name: self._entry(name, tensor) for name, tensor in self._header.tensors.items()}

    def read(self, name: str) -> np.ndarray:
        tensor = self._header.tensors[name]
        kind = self._gguf.GGMLQuantizationType(tensor.type_id)
        offset = self._header.data_start + tensor.offset
        raw = np.fromfile(self.path, np.uint8, self._sizes[name], offset=offset)
        if raw.size != self._sizes[name]:
            raise WeightError(f"{self.path}: {name}: the file was cut short while it was read.")
        if kind.name in _PLAIN:
            return raw.view(STORED[_PLAIN[kind.name]]).reshape(tensor.shape)
        return self._expand(name, raw, tensor, kind)

    def _expand(self, name: str, raw: np.ndarray, tensor: GgufTensor, kind: Any) -> np.ndarray:
        """Expand block after block; rows hold whole blocks, so that their ends do not matter."""
        block, size = self._gguf.GGML_QUANT_SIZES[kind]
        blocks = raw.reshape(-1, size)
        whole = np.empty((blocks.shape[0], block), np.float32)
        step = max(1, _CHUNK // block)
        for start in range(0, blocks.shape[0], step):
            part = blocks[start : start + step]
            try:
                # One long row: the package takes rows in groups of 16, and pays for each group.
                whole[start : start + step] = self._gguf.quants.dequantize(part.reshape(1, -1), kind).reshape(-1, block)
            except NotImplementedError as error:
                raise WeightError(f"{self.path}: {name}: the gguf package cannot expand {kind.name}.") from error
        return whole.reshape(tensor.shape)

    def _entry(self, name: str, tensor: GgufTensor) -> TensorEntry:
        storage = self._gguf.GGMLQuantizationType(tensor.type_id).name
        return TensorEntry(name, tensor.shape, _PLAIN.get(storage, "float32"), self.path, storage)

    def _stored_size(self, name: str, tensor: GgufTensor) -> int:
        """Return a tensor's bytes, once they are known to lie within the file."""
        try:
            kind = self._gguf.GGMLQuantizationType(tensor.type_id)
            block, size = self._gguf.GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError) as error:
            raise WeightError(f"{self.path}: {name}: has the unknown type {tensor.type_id}.") from error
        if not all(tensor.shape) or tensor.shape[-1:] == () or tensor.shape[-1] % block:
            raise WeightError(f"{self.path}: {name}: shape {list(tensor.shape)} is impossible for {kind.name}.")
        stored: int = math.prod(tensor.shape) // block * size
        room = self._header.file_size - self._header.data_start
        if tensor.offset + stored > room:
            text = f"ends at byte {tensor.offset + stored} of the data, which has {max(room, 0)}: the file is cut short"
            raise WeightError(f"{self.path}: {name}: {text}.")
        return stored

    def _check_overlaps(self) -> None:
        spans = sorted((tensor.offset, self._sizes[name], name) for name, tensor in self._header.tensors.items())
        for (start, size, name), (following, _, other) in pairwise(spans):
            if following < start + size:
                raise WeightError(f"{self.path}: {other}: overlaps {name}.")
