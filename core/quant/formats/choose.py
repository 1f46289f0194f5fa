"""Which format a model directory is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import Problem, RefusedError
from .awq import AwqFormat
from .gptq import GptqFormat
from .int8 import Int8Format

Format = GptqFormat | AwqFormat | Int8Format
FORMATS: dict[str, type[GptqFormat] | type[AwqFormat] | type[Int8Format]] = {
    "gptq": GptqFormat,
    "awq": AwqFormat,
    "compressed-tensors": Int8Format,
    "llm-run": Int8Format,
}
"""By ``quant_method``."""


def open_format(fields: Mapping[str, Any]) -> Format:
    """Return the format that a ``quantization_config`` describes.

    Raises:
        RefusedError: it is another one, or a kind of it that is not read here.
    """
    method = fields.get("quant_method")
    chosen = FORMATS.get(str(method).lower())
    if chosen is None:
        remedy = f"Read are {', '.join(FORMATS)}. Give the weights before they were quantized."
        key = "config.json: quantization_config.quant_method"
        raise RefusedError(Problem(key, repr(method), "is not read", remedy))
    return chosen(fields)
