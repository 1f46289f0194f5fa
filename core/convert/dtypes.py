"""Element types of weight files, and the casts between them. numpy has no bfloat16: its bits travel as uint16."""

from __future__ import annotations

import numpy as np

STORED: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(code)
    for name, code in {
        "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2",
        "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1",
        "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "u1", "bool": "?",
    }.items()
}  # fmt: skip
"""How the elements of each type lie in a file."""

FLOATING = ("float32", "bfloat16", "float16", "float64")
"""What a weight may be stored in."""


def to_float32(array: np.ndarray, dtype: str) -> np.ndarray:
    """Widen stored elements to float32; only float64 loses anything."""
    if dtype == "float32":
        return array
    if dtype == "bfloat16":
        widened: np.ndarray = (array.astype(np.uint32) << 16).view(np.float32)
        return widened
    return array.astype(np.float32)


def cast(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """Turn stored elements of one floating type into those of another.

    Rounded to the nearest, ties to even; what is too large for float16 becomes infinite.
    """
    if source == target:
        return array
    wide = to_float32(array, source)
    if target == "float32":
        return wide
    if target == "bfloat16":
        return _round_to_bfloat16(wide)
    with np.errstate(over="ignore"):
        return wide.astype(STORED[target])


def _round_to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Keep the upper 16 bits of float32, rounded; NaN stays NaN (rounding up its bits would make it a zero)."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype(np.uint16)
