"""From options to a method, and what the directory and the report say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import Problem, RefusedError
from .formats.awq import awq_fields
from .formats.gptq import gptq_fields
from .formats.int8 import int8_fields
from .gptq import GptqSettings
from .grid import GridSpec
from .groups import HEAD
from .layer import quantized_layers
from .methods import Awq, Gptq, RoundToNearest
from .settings import A8W8, BITS, GROUP_SIZES, read_quant_type
from .smooth import PiecewiseSearch
from .w8a8 import W8A8, Shift, Smooth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..causal_lm import CausalLM
    from ..run import Run
    from .methods import Method

STEPS = {"ptq": "ptq_step", "gptq": "gptq_step"}


def choose_method(run: Run, in_sizes: Sequence[int]) -> Method:
    """Return the method that the options ask for.

    Args:
        run: of ``ptq`` or ``gptq``.
        in_sizes: inputs of all layers that are quantized.

    Raises:
        RefusedError: the group size does not divide them.
    """
    options, task = run.config.quant, run.config.task
    quant_type = read_quant_type(options, task)
    assert quant_type is not None, "both tasks have a default"
    if quant_type == A8W8:
        return _w8a8(run)
    spec = GridSpec(BITS[quant_type], choose_group_size(options.quant_group_size, BITS[quant_type], in_sizes))
    if task == "gptq":
        return Gptq(spec, GptqSettings(act_order=options.gptq_act_order, damping=options.gptq_damping))
    if options.awq:
        return Awq(GridSpec(spec.bits, spec.group_size, symmetric=False))
    return RoundToNearest(spec)


def choose_group_size(asked: int | None, bits: int, in_sizes: Sequence[int]) -> int:
    """Return the inputs that share a scale: as asked, or the largest size that divides all layers.

    Raises:
        RefusedError: what was asked for does not divide them.
    """
    dividing = [size for size in sorted(GROUP_SIZES, reverse=True) if all(each % size == 0 for each in in_sizes)]
    if asked is None:
        return -1 if bits == 8 else dividing[0]
    if asked not in dividing:
        wrong = next(each for each in in_sizes if each % asked)
        remedy = f"Use one of {', '.join(map(str, dividing))}."
        raise RefusedError(
            Problem("--quant_group_size", str(asked), f"does not divide the {wrong} inputs of a layer", remedy)
        )
    return asked


def num_calibration_batches(method: Method, run: Run) -> int:
    """Return how many batches are read; 0 where the method looks at none."""
    options = run.config.quant
    if method.learns_from == "nothing":
        return 0
    if isinstance(method, W8A8):
        more = [step.num_batches for step in (method.shift, method.smooth) if step is not None]
        return max(options.ptq_step, *more) if more else options.ptq_step
    return options.gptq_step if run.config.task == "gptq" else options.ptq_step


def quantization_config(method: Method, model: CausalLM) -> dict[str, Any]:
    """Return the ``quantization_config`` of the finished model."""
    with_head = HEAD in quantized_layers(model)
    if isinstance(method, W8A8):
        layers = quantized_layers(model).values()
        adjusted = any(
            layer.added_bias_O is not None
            or layer.adjustment.shift_I is not None
            or layer.adjustment.factor_I is not None
            for layer in layers
        )
        return int8_fields(per_token=method.per_token, adjusted=adjusted, with_head=with_head)
    if isinstance(method, Awq):
        return awq_fields(method.spec.group_size)
    assert isinstance(method, Gptq | RoundToNearest)
    return gptq_fields(
        method.spec.bits,
        method.spec.group_size,
        method.settings if isinstance(method, Gptq) else None,
        with_head=with_head,
    )


def describe(method: Method) -> str:
    """Return the method in a few words."""
    if isinstance(method, W8A8):
        steps = [name for name, step in (("shift", method.shift), ("smooth", method.smooth)) if step is not None]
        searched = method.smooth is not None and method.smooth.search is not None
        scale = "by token" if method.per_token else "by tensor"
        return " + ".join(["W8A8", *steps, *(["piecewise search"] if searched else [])]) + f", activations {scale}"
    assert isinstance(method, Gptq | Awq | RoundToNearest)
    spec = method.spec
    name = {Gptq: "GPTQ", Awq: "AWQ", RoundToNearest: "round to nearest"}[type(method)]
    group = "one group a row" if spec.group_size == -1 else f"groups of {spec.group_size}"
    return f"{name}, {spec.bits} bits, {group}, {'symmetric' if spec.symmetric else 'with zero points'}"


def _w8a8(run: Run) -> W8A8:
    options = run.config.quant
    shift = smooth = None
    if options.shift:
        sampler = cast('Literal["none", "ema"]', options.shift_sampler)
        shift = Shift(sampler, options.shift_all_linears, options.shift_step)
    if options.smooth:
        search = None
        if options.smooth_piecewise_search:
            search = PiecewiseSearch(options.smooth_k_piece, options.smooth_search_piece)
        smooth = Smooth(
            options.smooth_alpha, search, cast('Literal["none", "multi_step"]', options.smooth_sampler),
            options.smooth_all_linears, options.smooth_step,
        )  # fmt: skip
    return W8A8(shift, smooth, options.activation_scale == "per_token", options.ptq_step)
