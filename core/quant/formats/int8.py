"""The layout of W8A8 tensors: an int8 ``weight``, ``weight_scale`` and ``input_scale``.

Source: the ``int-quantized`` format of compressed-tensors, which transformers and vLLM read. Where inputs are shifted
or divided in front of a layer, vectors for that lie beside it, and the directory says ``llm-run`` instead, so that no
other program computes without them. Shape letters: O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...convert.safetensors_writer import Planned
from ...errors import Problem, RefusedError
from .matrix import StoredMatrix

INPUT_SCALE = "input_scale"
ADJUSTMENTS = ("input_shift", "input_factor", "added_bias")
"""Vectors that only llm-run knows."""


class Int8Format:
    """Codes as they are, outputs first."""

    name = "int8"
    marker = "weight_scale"

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Read a ``quantization_config``.

        Raises:
            RefusedError: it asks for what is not read here.
        """
        self.fields = fields
        groups = fields.get("config_groups")
        group = next(iter(groups.values())) if isinstance(groups, dict) and len(groups) == 1 else {}
        weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
        found = (
            fields.get("format"), weights.get("num_bits"), weights.get("type"), weights.get("strategy"),
            weights.get("symmetric"), inputs.get("num_bits"), inputs.get("type"), inputs.get("symmetric"),
        )  # fmt: skip
        if found != ("int-quantized", 8, "int", "channel", True, 8, "int", True):
            remedy = "Of compressed-tensors, symmetric 8-bit integers by output are read (int-quantized)."
            raise RefusedError(Problem("config.json: quantization_config", "", "is not supported", remedy))
        self.per_token = bool(inputs.get("dynamic"))

    def plan(self, prefix: str, matrix: StoredMatrix) -> list[Planned]:
        """Return the tensors that a matrix becomes."""
        return [
            Planned(f"{prefix}.weight", (matrix.out_size, matrix.in_size), "int8"),
            Planned(f"{prefix}.weight_scale", (matrix.out_size, 1), "float32"),
            *(Planned(f"{prefix}.{name}", value.shape, "float32") for name, value in matrix.extras.items()),
        ]

    def write(self, matrix: StoredMatrix) -> list[np.ndarray]:
        """Return those tensors, in the order of the plan."""
        return [np.ascontiguousarray(matrix.codes_IO.T), matrix.scales_GO.T.copy(), *matrix.extras.values()]

    def read(self, read: Callable[[str], np.ndarray]) -> StoredMatrix:
        """Return a matrix without its extras, given a function that reads its tensors by suffix."""
        codes_OI = read("weight")
        return StoredMatrix(
            8, codes_OI.T, read("weight_scale").reshape(1, -1), None, np.zeros(codes_OI.shape[1], np.int64)
        )

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
        """Return (inputs, outputs) of a matrix from the shapes of its tensors by suffix."""
        return shapes["weight"][1], shapes["weight"][0]

    def suffixes(self) -> tuple[str, ...]:
        """Return the endings of the tensors that every matrix has."""
        return ("weight", "weight_scale")


def int8_fields(*, per_token: bool, adjusted: bool, with_head: bool) -> dict[str, Any]:
    """Return the ``quantization_config`` of a directory that is written here."""
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False}
    inputs = {**weights, "strategy": "token" if per_token else "tensor", "dynamic": per_token}
    return {
        "quant_method": "llm-run" if adjusted else "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}},
        "ignore": [] if with_head else ["lm_head"],
    }
