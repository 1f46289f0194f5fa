"""A model directory whose matrices are stored as integers, read like any other: matrices come out as floats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RefusedError, WeightError
from .dtypes import to_float32
from .fields import quantization_fields
from .source import TensorEntry, TensorSource

if TYPE_CHECKING:
    from pathlib import Path

    from ..quant.formats.choose import Format
    from ..quant.formats.matrix import StoredMatrix
    from .weights import Transfer


EXTRAS = ("input_scale", "input_shift", "input_factor", "added_bias")
"""Vectors that may lie beside a matrix."""
ADJUSTING = EXTRAS[1:]
"""Those that change what the layer computes."""


class QuantizedSource(TensorSource):
    """The tensors of a directory, with ``<layer>.weight`` in the place of the parts that a matrix is stored in."""

    def __init__(self, base: TensorSource, form: Format) -> None:
        """Look over the names.

        Raises:
            WeightError: a matrix lacks a part.
        """
        self._base, self.format = base, form
        self.path, self.layouts = base.path, base.layouts
        self._parts = {
            prefix: self._find_parts(prefix)
            for prefix in (_prefix(name, form.marker) for name in base.entries)
            if prefix is not None
        }
        self._inputs_first: set[str] = set()
        self._idle: set[str] = set()
        self.entries: Mapping[str, TensorEntry] = self._list_entries()

    def adapt(self, steps: Iterable[Transfer]) -> None:
        """Turn matrices as the model's rules expect them, and leave out biases of zeros that the model has not."""
        wanted: set[str] = set()
        for step in steps:
            wanted.update(step.theirs)
            if not step.rule.transpose:
                self._inputs_first.update(name for name in step.theirs if self.is_integer(name))
        # Some programs store a bias beside every matrix.
        biases = {f"{prefix}.bias" for prefix in self._parts} & self._base.entries.keys() - wanted
        self._idle = {name for name in biases if not self._base.read(name).any()}
        self.entries = self._list_entries()

    def is_integer(self, name: str) -> bool:
        """Whether ``name`` is a matrix that is stored as integers."""
        return name.removesuffix(".weight") in self._parts and name.endswith(".weight")

    def read(self, name: str) -> np.ndarray:
        if not self.is_integer(name):
            return self._base.read(name)
        matrix_IO = self.matrix(name).dequantize()
        return matrix_IO if name in self._inputs_first else np.ascontiguousarray(matrix_IO.T)

    def matrix(self, name: str) -> StoredMatrix:
        """Return a matrix as it is stored, inputs first.

        Raises:
            WeightError: its parts do not fit each other.
        """
        prefix = name.removesuffix(".weight")
        try:
            matrix = self.format.read(lambda suffix: self._read_part(prefix, suffix))
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise WeightError(f"{self.path}: {prefix}: its parts do not fit each other: {error}.") from error
        if matrix.group_I.shape != (matrix.in_size,) or matrix.group_I.max() >= len(matrix.scales_GO):
            raise WeightError(f"{self.path}: {prefix}: has inputs of groups that it has no scales for.")
        extras = {suffix: self._read_part(prefix, suffix) for suffix in self._parts[prefix] if suffix in EXTRAS}
        return dataclasses.replace(matrix, extras=extras)

    def check_floats(self) -> None:
        """Make sure that the matrices alone say what the model computes.

        Raises:
            WeightError: inputs are changed before they are multiplied, which floats in a file cannot say.
        """
        for prefix, suffixes in self._parts.items():
            found = [suffix for suffix in ADJUSTING if suffix in suffixes]
            if found:
                raise WeightError(
                    f"{self.path}: {prefix}.{found[0]}: the inputs of this layer are adjusted before they are "
                    "multiplied, so the model can be run, but neither converted nor trained. Use the model that it "
                    "was made from."
                )

    def _find_parts(self, prefix: str) -> tuple[str, ...]:
        wanted = self.format.suffixes()
        missing = [suffix for suffix in wanted if f"{prefix}.{suffix}" not in self._base.entries]
        if missing:
            raise WeightError(f"{self.path}: {prefix}.{missing[0]} is missing: the matrix cannot be read.")
        return (*wanted, *(suffix for suffix in EXTRAS if f"{prefix}.{suffix}" in self._base.entries))

    def _list_entries(self) -> dict[str, TensorEntry]:
        hidden = {f"{prefix}.{suffix}" for prefix, suffixes in self._parts.items() for suffix in suffixes} | self._idle
        found = {name: entry for name, entry in self._base.entries.items() if name not in hidden}
        for prefix, suffixes in self._parts.items():
            parts = {suffix: self._base.entries[f"{prefix}.{suffix}"] for suffix in suffixes}
            size_in, size_out = self.format.shape({suffix: entry.shape for suffix, entry in parts.items()})
            name = f"{prefix}.weight"
            shape = (size_in, size_out) if name in self._inputs_first else (size_out, size_in)
            file = parts[self.format.suffixes()[0]].file
            found[name] = TensorEntry(name, shape, "float32", file, self.format.name.upper())
        return found

    def _read_part(self, prefix: str, suffix: str) -> np.ndarray:
        name = f"{prefix}.{suffix}"
        dtype, array = self._base.entries[name].dtype, self._base.read(name)
        return to_float32(array, dtype) if dtype in ("float16", "bfloat16", "float64") else array


def open_quantized(base: TensorSource, path: Path) -> TensorSource:
    """Return ``base`` with its integer matrices as floats, where the directory says that it has such.

    Raises:
        WeightError: the integers are of a kind that is not read here.
    """
    from ..quant.formats.choose import open_format

    fields = quantization_fields(path)
    if fields is None or path.suffix == ".gguf":
        return base
    try:
        form = open_format(fields)
    except RefusedError as refusal:
        raise WeightError(f"{path}: {refusal}") from refusal
    return QuantizedSource(base, form)


def _prefix(name: str, marker: str) -> str | None:
    prefix, _, suffix = name.rpartition(".")
    return prefix if suffix == marker else None
