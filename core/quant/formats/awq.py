"""The layout of AWQ tensors: ``qweight``, ``qzeros``, ``scales``, all packed along the outputs in an order of its own.

Source: the tensors that AutoAWQ writes with ``version: gemm`` and transformers reads. Shape letters: O outputs,
I inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...convert.safetensors_writer import Planned
from ...errors import Problem, RefusedError
from .matrix import WORD, StoredMatrix, pack_rows, to_signed, to_unsigned, unpack_rows

BITS = 4
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The output that lies in each half byte of a word, from the lowest bits on."""


class AwqFormat:
    """Codes and zeros packed along the outputs."""

    name = "awq"
    marker = "qweight"

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Read a ``quantization_config``.

        Raises:
            RefusedError: it asks for what is not read here.
        """
        self.fields = fields
        for key, default, allowed in (("bits", BITS, (BITS,)), ("version", "gemm", ("gemm", "GEMM"))):
            if fields.get(key, default) not in allowed:
                name = f"config.json: quantization_config.{key}"
                remedy = f"Of AWQ, {key} {allowed[0]} is read."
                raise RefusedError(Problem(name, repr(fields[key]), "is not supported", remedy))
        self.group_size = int(fields.get("group_size", fields.get("q_group_size", -1)))

    def plan(self, prefix: str, matrix: StoredMatrix) -> list[Planned]:
        """Return the tensors that a matrix becomes."""
        groups, words = matrix.scales_GO.shape[0], matrix.out_size * BITS // WORD
        return [
            Planned(f"{prefix}.qweight", (matrix.in_size, words), "int32"),
            Planned(f"{prefix}.qzeros", (groups, words), "int32"),
            Planned(f"{prefix}.scales", (groups, matrix.out_size), "float16"),
        ]

    def write(self, matrix: StoredMatrix) -> list[np.ndarray]:
        """Return those tensors, in the order of the plan."""
        zeros_GO = np.zeros(matrix.scales_GO.shape, np.int8) if matrix.zeros_GO is None else matrix.zeros_GO
        return [_pack(matrix.codes_IO), _pack(zeros_GO), matrix.scales_GO.astype(np.float16)]

    def read(self, read: Callable[[str], np.ndarray]) -> StoredMatrix:
        """Return a matrix, given a function that reads its tensors by suffix; ``scales`` come as float32."""
        codes_IO, zeros_GO, scales_GO = _unpack(read("qweight")), _unpack(read("qzeros")), read("scales")
        group_I = np.arange(codes_IO.shape[0]) // (codes_IO.shape[0] // scales_GO.shape[0])
        return StoredMatrix(BITS, codes_IO, scales_GO, zeros_GO if zeros_GO.any() else None, group_I)

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
        """Return (inputs, outputs) of a matrix from the shapes of its tensors by suffix."""
        return shapes["qweight"][0], shapes["qweight"][1] * WORD // BITS

    def suffixes(self) -> tuple[str, ...]:
        """Return the endings of the tensors that every matrix has."""
        return ("qweight", "qzeros", "scales")


def awq_fields(group_size: int) -> dict[str, Any]:
    """Return the ``quantization_config`` of a directory that is written here."""
    return {
        "quant_method": "awq",
        "bits": BITS,
        "group_size": group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }


def _pack(codes_XO: np.ndarray) -> np.ndarray:
    ordered_XO = to_unsigned(codes_XO, BITS).reshape(codes_XO.shape[0], -1, len(ORDER))[:, :, ORDER]
    return np.ascontiguousarray(pack_rows(ordered_XO.reshape(codes_XO.shape).T, BITS).T)


def _unpack(packed_XW: np.ndarray) -> np.ndarray:
    ordered_XO = unpack_rows(np.ascontiguousarray(packed_XW.T), BITS).T
    ordered_XO = ordered_XO.reshape(packed_XW.shape[0], -1, len(ORDER))
    codes_XO = np.empty_like(ordered_XO)
    codes_XO[:, :, ORDER] = ordered_XO
    return to_signed(codes_XO.reshape(packed_XW.shape[0], -1), BITS)
