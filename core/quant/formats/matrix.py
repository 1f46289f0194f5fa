"""An integer matrix as files hold it, and the bits of its codes. Shape letters: O outputs, I inputs, G groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

WORD = 32
"""Bits that codes are packed into."""


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """One matrix, inputs first, as every format here has it after unpacking."""

    bits: int
    codes_IO: np.ndarray
    """int8, signed."""
    scales_GO: np.ndarray
    """float32."""
    zeros_GO: np.ndarray | None
    """int8, the code that stands for 0; ``None``: 0 does."""
    group_I: np.ndarray
    """int64: the group of each input."""
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Vectors that belong to the layer, by the suffix of their names: ``input_scale``, ``input_shift``, …"""

    @property
    def in_size(self) -> int:
        """I."""
        return int(self.codes_IO.shape[0])

    @property
    def out_size(self) -> int:
        """O."""
        return int(self.codes_IO.shape[1])

    def dequantize(self) -> np.ndarray:
        """Return what the codes stand for, float32 [I, O]."""
        codes_IO = self.codes_IO.astype(np.float32)
        if self.zeros_GO is not None:
            codes_IO -= self.zeros_GO.astype(np.float32)[self.group_I]
        decoded: np.ndarray = codes_IO * self.scales_GO[self.group_I]
        return decoded


def to_unsigned(codes: np.ndarray, bits: int) -> np.ndarray:
    """Move signed codes to 0 and up, uint32."""
    return (codes.astype(np.int32) + (1 << (bits - 1))).astype(np.uint32)


def to_signed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Move codes from 0 and up back around 0, int8."""
    return (codes.astype(np.int32) - (1 << (bits - 1))).astype(np.int8)


def pack_rows(codes: np.ndarray, bits: int) -> np.ndarray:
    """Put ``32 / bits`` neighbours of the first axis into one int32, the first in the lowest bits."""
    per_word = WORD // bits
    assert codes.shape[0] % per_word == 0, f"{codes.shape[0]} codes of {bits} bits do not fill words of {WORD}"
    parts = codes.astype(np.uint32).reshape(-1, per_word, *codes.shape[1:])
    packed = np.zeros((parts.shape[0], *codes.shape[1:]), dtype=np.uint32)
    for place in range(per_word):
        packed |= parts[:, place] << np.uint32(bits * place)
    return packed.view(np.int32)


def unpack_rows(packed: np.ndarray, bits: int) -> np.ndarray:
    """Undo ``pack_rows``; uint32."""
    words, mask = np.ascontiguousarray(packed).view(np.uint32), np.uint32((1 << bits) - 1)
    parts = [(words >> np.uint32(bits * place)) & mask for place in range(WORD // bits)]
    return np.stack(parts, axis=1).reshape(-1, *packed.shape[1:])
