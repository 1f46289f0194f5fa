"""Bytes of a frozen model whose matrices are kept as codes, by the arithmetic of ``adapters/coded_base.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..convert.fields import quantization_fields
from .activations import BYTE, FLOAT

if TYPE_CHECKING:
    from ..parallel.plan import ParallelPlan
    from ..run import Run
    from .layout import RankShare

DECODING = 10
"""Bytes a weight while a matrix is multiplied: the numbers of its codes, without and with their scales."""


@dataclass(frozen=True, slots=True)
class Codes:
    """How the matrices of a model are coded."""

    bits: int
    block: int
    """Weights that share a scale: neighbours of a matrix in nf4, else inputs of an output; -1 is all of those."""
    is_nf4: bool = False
    rounds_scales: bool = False
    """Scales are 8 bits, and 256 of them share a scale of their own."""
    has_zeros: bool = False
    """A byte beside each scale says which code stands for 0."""

    def size(self, num_inputs: int, num_outputs: int) -> int:
        """Return the bytes of a matrix."""
        weights = num_inputs * num_outputs
        if not self.is_nf4:
            scales = num_outputs * (1 if self.block == -1 else num_inputs // self.block)
            return num_outputs * math.ceil(num_inputs * self.bits / 8) + scales * (FLOAT + BYTE * self.has_zeros)
        blocks = math.ceil(weights / self.block)
        scales = blocks + FLOAT * math.ceil(blocks / 256) if self.rounds_scales else FLOAT * blocks
        return blocks * self.block * self.bits // 8 + scales


@dataclass(frozen=True, slots=True)
class CodedPart:
    """The matrices of one rank that are codes; zeros where none are."""

    numbers: int = 0
    """Bytes that they would take as numbers."""
    codes: int = 0
    """Bytes that they take."""
    largest: int = 0
    """Weights of the largest one."""
    begins_as_numbers: bool = False
    """The rank's part of the model is read before anything of it is coded."""

    @property
    def saved(self) -> int:
        """Bytes that codes take less."""
        return self.numbers - self.codes


def coded_part(run: Run, share: RankShare, plan: ParallelPlan) -> CodedPart:
    """Return what a rank has as codes.

    Args:
        run: the checked request.
        share: what the rank has of the model.
        plan: of the ranks.

    Raises:
        RefusedError: the block size does not divide a layer.
    """
    if not share.is_frozen:
        return CodedPart()
    held = [name for name in _names(run) if name in share.model]
    codes = _codes_to_be(run, [share.parts[name].shape[0] for name in held])
    begins_as_numbers = codes is not None and not _has_all(plan)
    if codes is None and _has_all(plan):
        codes = _codes_of_directory(run)
    if codes is None:
        return CodedPart()
    matrices = [(share.model[name][0], share.model[name][1]) for name in held]
    sizes = [inputs * outputs for inputs, outputs in matrices]
    return CodedPart(
        FLOAT * sum(sizes), sum(codes.size(*shape) for shape in matrices), max(sizes, default=0), begins_as_numbers
    )


def coded_weights(run: Run, plan: ParallelPlan) -> list[str]:
    """Return the names of the matrices that are codes under an adapter."""
    is_coded = run.config.adapter.weight_quantize_algo is not None
    return _names(run) if is_coded or (_has_all(plan) and _codes_of_directory(run)) else []


def _has_all(plan: ParallelPlan) -> bool:
    """Whether each rank has all matrices, from the first to the last layer."""
    return plan.mp == plan.pp == plan.sep == 1


def _names(run: Run) -> list[str]:
    from ..adapters.coded_base import coded_names

    return [f"{name}.weight" for name in coded_names(run.family, run.model_config) or ()]


def _codes_to_be(run: Run, in_sizes: list[int]) -> Codes | None:
    """Return what the run makes of matrices of numbers, if anything."""
    from ..adapters.coded_base import NF4_BLOCK
    from ..adapters.settings import NF4, QUANTIZED_BITS
    from ..quant.plan import choose_group_size

    options = run.config.adapter
    if options.weight_quantize_algo is None:
        return None
    if options.weight_quantize_algo == NF4:
        block = options.weight_blocksize or NF4_BLOCK
        return Codes(4, block, is_nf4=True, rounds_scales=bool(options.weight_double_quant))
    bits = QUANTIZED_BITS[options.weight_quantize_algo]
    return Codes(bits, choose_group_size(options.weight_blocksize, bits, in_sizes))


def _codes_of_directory(run: Run) -> Codes | None:
    """Return how the matrices of the run's model directory are stored, where they are used as they are."""
    from ..quant.formats.awq import AwqFormat
    from ..quant.formats.choose import open_format
    from ..quant.formats.int8 import Int8Format

    source = run.config.model.model_name_or_path
    fields = quantization_fields(Path(source)) if source else None
    if fields is None:
        return None
    form = open_format(fields)
    if isinstance(form, Int8Format):  # is widened: what it computes depends on the inputs
        return None
    if isinstance(form, AwqFormat):
        return Codes(4, form.group_size, has_zeros=True)
    return Codes(form.bits, int(fields.get("group_size", -1)), has_zeros=not fields.get("sym", True))
