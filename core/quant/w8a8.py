"""Weights and activations in 8 bits, after outliers have been moved out of the activations. Shape letters: I inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import paddle

from ..ops import int8_linear
from ..ops.quantized_linear import SMALLEST_SCALE
from .gptq import relative_error
from .grid import Grid, GridSpec, round_to_nearest
from .layer import InputQuantization, pack_weight
from .methods import LayerRecord, Learning, describe
from .observe import AverageMaximum, Both, Extremes, SampledRows
from .smooth import PiecewiseSearch, Trial, search_alpha, smooth_scale

if TYPE_CHECKING:
    from .block import BlockInWork
    from .ranks import Ranks
    from .walk import Walk

INT8 = GridSpec(bits=8)
SEARCH_ROWS = 256
"""Tokens on which searches try their arithmetic."""
SEARCH_OUTPUTS = 512
"""Outputs on which searches try it: each is rounded for itself, so that some of them speak for all."""
ERROR_ROWS = 32
"""Tokens of each batch on which the error of a layer is measured."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Subtracts the middle of each input."""

    sampler: Literal["none", "ema"] = "none"
    """``none``: half way between the extremes of all batches; ``ema``: the moving average of the batches' means."""
    all_linears: bool = False
    """Also the layers that no norm feeds; they then subtract for themselves."""
    num_batches: int = 32


@dataclass(frozen=True, slots=True)
class Smooth:
    """Divides each input by a factor that its weights are multiplied by."""

    alpha: float | None = None
    """``None``: searched for each group of layers."""
    search: PiecewiseSearch | None = None
    """In the place of one alpha for all inputs of a group."""
    sampler: Literal["none", "multi_step"] = "none"
    """The search looks at tokens of the last batch, or of all batches."""
    all_linears: bool = False
    """Also the layers that no norm feeds."""
    num_batches: int = 32


@dataclass(frozen=True, slots=True)
class W8A8:
    """8-bit weights by output, 8-bit activations by tensor or by token."""

    shift: Shift | None = None
    smooth: Smooth | None = None
    per_token: bool = False
    """Each token has a scale of its own, found while it is computed; otherwise one is measured beforehand."""
    num_batches: int = 32
    learns_from: ClassVar[Learning] = "float"

    def quantize(self, work: BlockInWork, walk: Walk) -> list[LayerRecord]:
        """Shift, smooth, measure the activations, and round every matrix."""
        if self.shift is not None:
            self._shift(self.shift, work, walk)
        if self.smooth is not None:
            self._smooth(self.smooth, work, walk)

        def look() -> Both[AverageMaximum, SampledRows]:
            return Both(AverageMaximum(), SampledRows(ERROR_ROWS))

        seen = work.observe(walk, work.groups, look, self.num_batches)
        records = []
        for group, both in zip(work.groups, seen, strict=True):
            scale = max(both.first.value / INT8.highest, SMALLEST_SCALE)
            inputs = InputQuantization(None if self.per_token else scale)
            rows_TI = np.concatenate(both.second.rows)
            records += [_round(work, name, inputs, rows_TI, walk.ranks) for name in group.linears]
        return records

    def _shift(self, shift: Shift, work: BlockInWork, walk: Walk) -> None:
        groups = [group for group in work.groups if group.norm or shift.all_linears]
        seen = work.observe(walk, groups, Extremes, shift.num_batches)
        for group, extremes in zip(groups, seen, strict=True):
            work.shift_inputs(group, extremes.middle_I if shift.sampler == "none" else extremes.average_I)

    def _smooth(self, smooth: Smooth, work: BlockInWork, walk: Walk) -> None:
        groups = [group for group in work.groups if group.norm or smooth.all_linears]
        num_batches = min(smooth.num_batches, walk.num_batches)
        per_batch = -(-SEARCH_ROWS // num_batches) if smooth.sampler == "multi_step" else SEARCH_ROWS

        def look() -> Both[Extremes, SampledRows]:
            return Both(Extremes(), SampledRows(per_batch))

        seen = work.observe(walk, groups, look, smooth.num_batches)
        # Later groups first: a scale that is folded into a feeder changes a matrix of an earlier group.
        for group, both in reversed(list(zip(groups, seen, strict=True))):
            extremes, sampled = both.first, both.second
            input_max_I = work.tie(group, extremes.absolute_I)
            weight_max_I = work.tie(group, work.largest_weights(group))
            if smooth.search is None and smooth.alpha is not None:
                scale_I = smooth_scale(input_max_I, weight_max_I, smooth.alpha)
            else:
                picked = sampled.rows if smooth.sampler == "multi_step" else sampled.rows[-1:]
                weight_OI = np.concatenate([work.weight(name) for name in group.linears])
                weight_OI = weight_OI[:: -(-len(weight_OI) // SEARCH_OUTPUTS)]
                trial = Trial(np.concatenate(picked), weight_OI, input_max_I, weight_max_I, self.per_token)
                scale_I = search_alpha(trial) if smooth.search is None else smooth.search.run(trial)
            work.scale_inputs(group, scale_I)


def _round(work: BlockInWork, name: str, inputs: InputQuantization, rows_TI: np.ndarray, ranks: Ranks) -> LayerRecord:
    """Replace a layer, and measure what rounding of weights and activations does to its outputs for some tokens."""
    weight_OI = work.weight(name)
    codes_OI, grid = round_to_nearest(weight_OI, INT8)
    packed = pack_weight(codes_OI, grid)
    work.replace(name, packed, inputs)

    def some(rows: slice) -> list[np.ndarray]:
        piece = pack_weight(codes_OI[rows], Grid(INT8, grid.scales_OG[rows], None))
        expected_TO = rows_TI @ weight_OI[rows].T
        found_TO = int8_linear(paddle.to_tensor(rows_TI), piece, input_scale=inputs.scale).numpy()
        squares = (found_TO - expected_TO).astype(np.float64) ** 2, expected_TO.astype(np.float64) ** 2
        return [each_TO.sum(axis=0) for each_TO in squares]

    error = relative_error(*ranks.by_rows(len(weight_OI), some))
    return describe(name, weight_OI, codes_OI, grid, packed.num_bytes, error)
