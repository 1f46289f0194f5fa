"""The integers that a matrix may be rounded to, and rounding. Pure numpy.

Shape letters: O outputs, I inputs, G groups of inputs that share a scale, J inputs of a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BITS = (4, 8)
GROUP_SIZES = (-1, 32, 64, 128)
SMALLEST_SCALE = float(np.finfo(np.float16).tiny)
"""Of a group: files hold scales in float16, whose smallest normal number this is."""
LARGEST_SCALE = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class GridSpec:
    """Which integers there are, before a matrix is known."""

    bits: int
    group_size: int = -1
    """Neighbouring inputs that share a scale; -1: all of a row."""
    symmetric: bool = True
    """The code 0 stands for 0; otherwise each group has a code of its own that does."""

    @property
    def lowest(self) -> int:
        """Smallest code."""
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1

    def num_groups(self, in_size: int) -> int:
        """Return G for a matrix of ``in_size`` inputs, which a group size must divide."""
        assert self.group_size == -1 or in_size % self.group_size == 0, f"{self.group_size} does not divide {in_size}"
        return 1 if self.group_size == -1 else in_size // self.group_size


@dataclass(frozen=True, slots=True)
class Grid:
    """What the codes of one matrix stand for: ``(code - zero) * scale``."""

    spec: GridSpec
    scales_OG: np.ndarray
    """float32 whose values float16 holds as well, so that a file loses nothing."""
    zeros_OG: np.ndarray | None
    """int8; ``None`` where symmetric."""

    def columns(self, in_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scales and zeros for every input, float32 [O, I] each."""
        zeros_OG = np.zeros_like(self.scales_OG) if self.zeros_OG is None else self.zeros_OG.astype(np.float32)
        return _by_input(self.scales_OG, in_size), _by_input(zeros_OG, in_size)

    def encode(self, weight_OI: np.ndarray) -> np.ndarray:
        """Return the nearest codes, int8 [O, I]."""
        scales_OI, zeros_OI = self.columns(weight_OI.shape[1])
        codes_OI = np.rint(weight_OI / scales_OI) + zeros_OI
        clipped_OI: np.ndarray = np.clip(codes_OI, self.spec.lowest, self.spec.highest).astype(np.int8)
        return clipped_OI

    def decode(self, codes_OI: np.ndarray) -> np.ndarray:
        """Return what codes stand for, float32 [O, I]."""
        scales_OI, zeros_OI = self.columns(codes_OI.shape[1])
        decoded: np.ndarray = (codes_OI.astype(np.float32) - zeros_OI) * scales_OI
        return decoded


def _by_input(values_OG: np.ndarray, in_size: int) -> np.ndarray:
    """Give every input the value of its group; of one group without copying it."""
    num_outputs, num_groups = values_OG.shape
    if num_groups == 1:
        return np.broadcast_to(values_OG, (num_outputs, in_size))
    return np.repeat(values_OG, in_size // num_groups, axis=1)


def fit_grid(weight_OI: np.ndarray, spec: GridSpec, shrink: np.ndarray | float = 1.0) -> Grid:
    """Return the grid that reaches from the smallest to the largest weight of every group.

    A symmetric one has as many steps to either side (127 or 7), as absolute-maximum quantization has them.

    Args:
        weight_OI: float32.
        spec: bits and groups.
        shrink: share of the range that is kept, one for all or [O, G]; what lies beyond is clipped.
    """
    num_groups = spec.num_groups(weight_OI.shape[1])
    weight_OGJ = weight_OI.reshape(weight_OI.shape[0], num_groups, -1)
    if spec.symmetric:
        reach_OG = np.abs(weight_OGJ).max(axis=2) * shrink
        return Grid(spec, storable(reach_OG / spec.highest), None)
    # The range holds 0, so that a weight of 0 has a code of its own.
    low_OG = np.minimum(weight_OGJ.min(axis=2), 0.0) * shrink
    high_OG = np.maximum(weight_OGJ.max(axis=2), 0.0) * shrink
    scales_OG = storable((high_OG - low_OG) / (spec.highest - spec.lowest))
    zeros_OG = np.clip(spec.lowest - np.rint(low_OG / scales_OG), spec.lowest, spec.highest)
    return Grid(spec, scales_OG, zeros_OG.astype(np.int8))


def storable(scales: np.ndarray) -> np.ndarray:
    """Round scales to float16, which the formats of other programs hold; those of groups of zeros become 1."""
    rounded = np.clip(scales, SMALLEST_SCALE, LARGEST_SCALE).astype(np.float16).astype(np.float32)
    return np.where(scales > 0, rounded, np.float32(1.0))


def round_to_nearest(weight_OI: np.ndarray, spec: GridSpec) -> tuple[np.ndarray, Grid]:
    """Return codes int8 [O, I] and their grid: what needs no data (RTN)."""
    grid = fit_grid(weight_OI, spec)
    return grid.encode(weight_OI), grid


def search_grid(weight_OI: np.ndarray, spec: GridSpec, importance_I: np.ndarray, *, steps: int = 12) -> Grid:
    """Return the grid that has the least weighted squared rounding error, of ranges from all down to 45 per cent.

    Args:
        weight_OI: float32.
        spec: bits and groups.
        importance_I: weight of an input's error, such as the mean square of that input.
        steps: ranges that are tried.
    """
    num_groups = spec.num_groups(weight_OI.shape[1])
    best_OG = np.full((weight_OI.shape[0], num_groups), np.inf, dtype=np.float32)
    shrink_OG = np.ones_like(best_OG)
    for shrink in np.linspace(1.0, 0.45, steps, dtype=np.float32):
        grid = fit_grid(weight_OI, spec, shrink)
        error_OI = (grid.decode(grid.encode(weight_OI)) - weight_OI) ** 2 * importance_I
        error_OG = error_OI.reshape(*best_OG.shape, -1).sum(axis=2)
        better_OG = error_OG < best_OG
        best_OG = np.where(better_OG, error_OG, best_OG)
        shrink_OG = np.where(better_OG, shrink, shrink_OG)
    return fit_grid(weight_OI, spec, shrink_OG)
