"""The layout of GPTQ tensors: ``qweight``, ``qzeros``, ``scales``, ``g_idx``.

Source: the tensors that AutoGPTQ writes and transformers reads; GPTQModel's documentation of ``checkpoint_format``.
Shape letters: O outputs, I inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...convert.safetensors_writer import Planned
from ...errors import Problem, RefusedError
from ..gptq import GptqSettings
from .matrix import WORD, StoredMatrix, pack_rows, to_signed, to_unsigned, unpack_rows

SUFFIXES = ("qweight", "qzeros", "scales", "g_idx")


class GptqFormat:
    """Codes packed along the inputs, zeros along the outputs."""

    name = "gptq"
    marker = "qweight"

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Read a ``quantization_config``.

        Raises:
            RefusedError: it asks for what is not read here.
        """
        self.fields = fields
        if fields.get("bits") not in (4, 8):
            raise _refused("bits", fields.get("bits"), "Of GPTQ, 4 and 8 bits are read.")
        self.bits = int(fields["bits"])
        layout = fields.get("checkpoint_format", "gptq")
        if layout not in ("gptq", "gptq_v2"):
            raise _refused("checkpoint_format", layout, "Read are gptq and gptq_v2.")
        # The first version of the format stores each zero less 1.
        self.missing = np.uint32(1 if layout == "gptq" else 0)

    def plan(self, prefix: str, matrix: StoredMatrix) -> list[Planned]:
        """Return the tensors that a matrix becomes."""
        size_in, size_out, groups = matrix.in_size, matrix.out_size, matrix.scales_GO.shape[0]
        return [
            Planned(f"{prefix}.qweight", (size_in * matrix.bits // WORD, size_out), "int32"),
            Planned(f"{prefix}.qzeros", (groups, size_out * matrix.bits // WORD), "int32"),
            Planned(f"{prefix}.scales", (groups, size_out), "float16"),
            Planned(f"{prefix}.g_idx", (size_in,), "int32"),
        ]

    def write(self, matrix: StoredMatrix) -> list[np.ndarray]:
        """Return those tensors, in the order of the plan."""
        zeros_GO = np.zeros(matrix.scales_GO.shape, np.int8) if matrix.zeros_GO is None else matrix.zeros_GO
        stored_GO = (to_unsigned(zeros_GO, matrix.bits) - self.missing) & np.uint32((1 << matrix.bits) - 1)
        return [
            pack_rows(to_unsigned(matrix.codes_IO, matrix.bits), matrix.bits),
            np.ascontiguousarray(pack_rows(stored_GO.T, matrix.bits).T),
            matrix.scales_GO.astype(np.float16),
            matrix.group_I.astype(np.int32),
        ]

    def read(self, read: Callable[[str], np.ndarray]) -> StoredMatrix:
        """Return a matrix, given a function that reads its tensors by suffix; ``scales`` come as float32."""
        codes_IO = to_signed(unpack_rows(read("qweight"), self.bits), self.bits)
        stored_GO = unpack_rows(np.ascontiguousarray(read("qzeros").T), self.bits).T
        zeros_GO = to_signed((stored_GO + self.missing) & np.uint32((1 << self.bits) - 1), self.bits)
        return StoredMatrix(
            self.bits, codes_IO, read("scales"), zeros_GO if zeros_GO.any() else None, read("g_idx").astype(np.int64)
        )

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
        """Return (inputs, outputs) of a matrix from the shapes of its tensors by suffix."""
        return shapes["qweight"][0] * WORD // self.bits, shapes["qweight"][1]

    def suffixes(self) -> tuple[str, ...]:
        """Return the endings of the tensors that every matrix has."""
        return SUFFIXES


def gptq_fields(bits: int, group_size: int, settings: GptqSettings | None, *, with_head: bool) -> dict[str, Any]:
    """Return the ``quantization_config`` of a directory that is written here.

    Args:
        bits: of a code.
        group_size: inputs that share a scale.
        settings: ``None``: rounded to the nearest.
        with_head: the head is quantized as well.
    """
    more: dict[str, Any] = {}
    if settings is not None:
        # What act_order means to others is desc_act: inputs sorted in the file, which are not.
        more = {"damp_percent": settings.damping, "true_sequential": True, "act_sorted": settings.act_order}
    return {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "sym": True,
        # Groups are neighbouring inputs, whatever order they were rounded in.
        "desc_act": False,
        "static_groups": True,
        "checkpoint_format": "gptq",
        "lm_head": with_head,
        **more,
    }


def _refused(key: str, value: object, remedy: str) -> RefusedError:
    return RefusedError(Problem(f"config.json: quantization_config.{key}", repr(value), "is not supported", remedy))
