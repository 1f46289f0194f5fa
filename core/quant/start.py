"""Integers that are made when a model is loaded to be asked something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Problem, RefusedError
from .grid import GridSpec
from .groups import groups_of_block
from .layer import quantized_layers
from .plan import choose_group_size
from .quantize import quantize_weights
from .settings import BITS, read_quant_type

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..run import Run


def round_at_start(model: CausalLM, run: Run) -> None:
    """Round the weights of a model to the nearest codes, where the options ask for it.

    Args:
        model: with values; changed in place.
        run: its ``quant_type`` and ``quant_group_size``.

    Raises:
        RefusedError: the model is quantized already, its family states no quantizable layers, or the group size does
            not divide a layer.
    """
    options = run.config.quant
    quant_type = read_quant_type(options, run.config.task)
    if quant_type is None:
        return
    groups = run.family.quantizable_layers(run.model_config)
    if groups is None or quantized_layers(model):
        found = "states no quantizable layers" if groups is None else "is quantized already"
        name = run.config.family if groups is None else str(run.config.model.model_name_or_path)
        raise RefusedError(Problem("--quant_type", quant_type, f"cannot be done: {name} {found}", "Leave it out."))
    bits = BITS[quant_type]
    names = [name for group in groups_of_block(groups, 0) for name in group.linears]
    in_sizes = [int(model.get_sublayer(name).weight.shape[0]) for name in names]
    quantize_weights(model, groups, GridSpec(bits, choose_group_size(options.quant_group_size, bits, in_sizes)))
