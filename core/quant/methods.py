"""Ways of quantizing the weights of a block: rounding to the nearest, GPTQ, AWQ. Shape letters: O outputs, I inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from .awq import clipped, search_scale
from .gptq import GptqSettings, gptq, relative_error, squared_errors
from .grid import Grid, GridSpec, round_to_nearest
from .layer import pack_weight
from .observe import Moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from .block import BlockInWork
    from .ranks import Ranks
    from .walk import Walk


Learning = Literal["nothing", "float", "quantized"]
"""What calibration data have gone through when a method looks at them: nothing is looked at, or blocks as they were, or
blocks that are quantized already."""


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What became of one layer, for the report."""

    name: str
    bits: int
    group_size: int
    num_bytes: int
    """Of codes, scales and zeros in memory."""
    weight_error: float
    """``|W - W'| / |W|``, of the weights as they were rounded (after scaling, where they were scaled)."""
    output_error: float | None
    """``|X (W - W')^T| / |X W^T|`` on the calibration data; ``None`` where none was looked at."""


class Method(Protocol):
    """A way of quantizing one block after the other."""

    learns_from: ClassVar[Learning]

    def quantize(self, work: BlockInWork, walk: Walk) -> list[LayerRecord]:
        """Quantize all groups of a block.

        Args:
            work: the block, in floats.
            walk: calibration data in front of it.
        """


@dataclass(frozen=True, slots=True)
class RoundToNearest:
    """Each weight to the nearest code; looks at no data."""

    spec: GridSpec
    learns_from: ClassVar[Learning] = "nothing"

    def quantize(self, work: BlockInWork, walk: Walk) -> list[LayerRecord]:
        """Round every matrix."""
        records = []
        for name in (name for group in work.groups for name in group.linears):
            weight_OI = work.weight(name)
            records.append(replace_layer(work, name, weight_OI, *round_to_nearest(weight_OI, self.spec)))
        return records


@dataclass(frozen=True, slots=True)
class Gptq:
    """GPTQ, group by group: each is measured with all before it quantized."""

    spec: GridSpec
    settings: GptqSettings
    learns_from: ClassVar[Learning] = "quantized"

    def quantize(self, work: BlockInWork, walk: Walk) -> list[LayerRecord]:
        """Round every matrix, so that the outputs change least."""
        records = []
        for group in work.groups:
            hessian_II = work.observe(walk, [group], Moments)[0].hessian_II
            solve = partial(gptq, hessian_II=hessian_II, spec=self.spec, settings=self.settings)
            for name in group.linears:
                weight_OI = work.weight(name)
                found = solve_by_rows(weight_OI, hessian_II, self.spec, walk.ranks, solve)
                records.append(replace_layer(work, name, weight_OI, *found))
        return records


@dataclass(frozen=True, slots=True)
class Awq:
    """Scales for all groups first, folded into what makes their inputs; then clipping and rounding."""

    spec: GridSpec
    learns_from: ClassVar[Learning] = "float"

    def quantize(self, work: BlockInWork, walk: Walk) -> list[LayerRecord]:
        """Scale, clip and round every matrix."""
        seen = work.observe(walk, work.groups, Moments)
        hessians = [each.hessian_II for each in seen]
        # Later groups first: a scale that is folded into a feeder changes a matrix of an earlier group.
        for index in reversed(range(len(work.groups))):
            group = work.groups[index]
            if not work.can_fold(group):
                continue
            weights = [work.weight(name) for name in group.linears]
            sizes_I = work.tie(group, seen[index].mean_abs_I)
            scale_I = search_scale(weights, sizes_I, hessians[index], self.spec, walk.ranks)
            work.scale_inputs(group, scale_I)
            hessians[index] = hessians[index] / np.outer(scale_I, scale_I)
        records = []
        for group, hessian_II in zip(work.groups, hessians, strict=True):
            clip = partial(clipped, hessian_II=hessian_II, spec=self.spec)
            for name in group.linears:
                weight_OI = work.weight(name)
                found = solve_by_rows(weight_OI, hessian_II, self.spec, walk.ranks, clip)
                records.append(replace_layer(work, name, weight_OI, *found))
        return records


def solve_by_rows(
    weight_OI: np.ndarray,
    hessian_II: np.ndarray,
    spec: GridSpec,
    ranks: Ranks,
    solve: Callable[[np.ndarray], tuple[np.ndarray, Grid]],
) -> tuple[np.ndarray, Grid, float]:
    """Round a matrix whose rows do not depend on each other, each rank some of them.

    Args:
        weight_OI: float32, the same on all ranks.
        hessian_II: mean of ``x x^T``.
        spec: of the grid.
        ranks: that share the rows.
        solve: returns codes and their grid for some rows.

    Returns:
        Codes, their grid, and the relative error of the outputs.

    Raises:
        DistributedError: a rank has gone, is late, or came to something else.
    """

    def some(rows: slice) -> list[np.ndarray]:
        codes_OI, grid = solve(weight_OI[rows])
        zeros = [] if grid.zeros_OG is None else [grid.zeros_OG]
        errors_O, sizes_O = squared_errors(weight_OI[rows], grid.decode(codes_OI), hessian_II)
        return [errors_O, sizes_O, codes_OI, grid.scales_OG, *zeros]

    errors_O, sizes_O, codes_OI, scales_OG, *zeros = ranks.by_rows(len(weight_OI), some)
    grid = Grid(spec, scales_OG, zeros[0] if zeros else None)
    return codes_OI, grid, relative_error(errors_O, sizes_O)


def replace_layer(
    work: BlockInWork,
    name: str,
    weight_OI: np.ndarray,
    codes_OI: np.ndarray,
    grid: Grid,
    error: float | None = None,
) -> LayerRecord:
    """Put a weight-only layer into the block, and return what is to be reported of it; ``error`` is its outputs'."""
    packed = pack_weight(codes_OI, grid)
    work.replace(name, packed)
    return describe(name, weight_OI, codes_OI, grid, packed.num_bytes, error)


def describe(
    name: str, weight_OI: np.ndarray, codes_OI: np.ndarray, grid: Grid, num_bytes: int, error: float | None
) -> LayerRecord:
    """Return the record of a layer; ``error`` is that of its outputs, where it is known."""
    rounded_OI = grid.decode(codes_OI)
    size = float(np.linalg.norm(weight_OI))
    return LayerRecord(
        name=name,
        bits=grid.spec.bits,
        group_size=grid.spec.group_size,
        num_bytes=num_bytes,
        weight_error=float(np.linalg.norm(weight_OI - rounded_OI)) / size if size else 0.0,
        output_error=error,
    )
