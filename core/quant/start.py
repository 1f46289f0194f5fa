"""Integers that are made when a model is loaded to be asked something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Problem, RefusedError
from .grid import GridSpec, round_to_nearest
from .groups import HEAD, groups_of_block
from .head import head_weight, with_own_head
from .layer import InputQuantization, QuantizedLinear, pack_weight, put_layers, quantized_layers
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
        run: its ``quant_type``, ``quant_group_size`` and ``quantize_lm_head``.

    Raises:
        RefusedError: the model is quantized already, its family states no quantizable layers or no such head, or the
            group size does not divide a layer.
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
    own = with_own_head(run.family, run.model_config) if options.quantize_lm_head else None
    if own is not None:
        in_sizes.append(head_weight(model).shape[1])
    spec = GridSpec(bits, choose_group_size(options.quant_group_size, bits, in_sizes))
    quantize_weights(model, groups, spec)
    if own is not None:
        put_layers(model, {HEAD: QuantizedLinear(pack_weight(*round_to_nearest(head_weight(model), spec)), None)})
        model.config = own


def round_activations(model: CausalLM) -> None:
    """Let integer weights be multiplied by activations of 8 bits, by block of inputs (``--activations_int8``).

    Raises:
        RefusedError: there are no such weights, or their activations are of 8 bits already (A8W8).
    """
    layers = quantized_layers(model).values()
    rounded = InputQuantization(by_block=True)
    for layer in layers:
        layer.inputs = layer.inputs or rounded
    if all(layer.inputs != rounded for layer in layers):
        reason = "is for integer weights, and the model has none"
        remedy = "Give --quant_type WINT4 or WINT8 as well, or a quantized model."
        if layers:
            reason, remedy = (
                "changes nothing: the model is A8W8, whose activations are of 8 bits already",
                "Leave it out.",
            )
        raise RefusedError(Problem("--activations_int8", "true", reason, remedy))
