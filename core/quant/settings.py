"""The options of quantization, read and checked. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.option import ASKING, QUANTIZING
from ..convert.fields import quantization_fields
from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from ..config.quantization import QuantOptions
    from ..run import RunConfig

A8W8, WINT8, WINT4 = "a8w8", "weight_only_int8", "weight_only_int4"
SPELLINGS = {"wint8": WINT8, "wint4": WINT4, "w8a8": A8W8}
BITS = {A8W8: 8, WINT8: 8, WINT4: 4}
GROUP_SIZES = (-1, 32, 64, 128)
DEFAULTS = {"ptq": A8W8, "gptq": WINT4}


def read_quant_type(options: QuantOptions, task: str) -> str | None:
    """Return the canonical name of ``quant_type``; ``None``: nothing is quantized.

    Raises:
        RefusedError: it is not one.
    """
    if options.quant_type is None:
        return DEFAULTS.get(task)
    name = options.quant_type.lower()
    name = SPELLINGS.get(name, name)
    if name not in BITS:
        remedy = "Use A8W8, WINT8 or WINT4."
        raise RefusedError(Problem("--quant_type", f"'{options.quant_type}'", "is not a quantization", remedy))
    return name


def asked_quantization(config: RunConfig) -> str | None:
    """Return the feature that ``quant_type`` asks for; ``None`` where it is not given, or wrong."""
    if config.quant.quant_type is None or config.task not in (*QUANTIZING, *ASKING, "export"):
        return None
    name = config.quant.quant_type.lower()
    name = SPELLINGS.get(name, name)
    return name if name in BITS else None


def check_quantization(config: RunConfig) -> list[Problem]:
    """Return what is wrong with the options of a run of ``ptq`` or ``gptq``, or of one that rounds at the start."""
    try:
        quant_type = read_quant_type(config.quant, config.task)
    except RefusedError as error:
        return list(error.problems)
    return [*_ranges(config), *_idle(config, quant_type)]


def unquantizable(path: str) -> list[Problem]:
    """Return why what lies at ``path`` cannot be quantized: it is an adapter, or integers already."""
    directory = Path(path)
    if (directory / "adapter_config.json").is_file() and not (directory / "config.json").is_file():
        remedy = "Merge it first: llm-run --task merge_lora."
        return [Problem("--model_name_or_path", path, "holds an adapter and not a whole model", remedy)]
    fields = quantization_fields(directory)
    if fields is None:
        return []
    method = fields.get("quant_method", "an unknown method")
    remedy = "Give the model that it was made from."
    return [Problem("--model_name_or_path", path, f"is quantized already ({method})", remedy)]


def _ranges(config: RunConfig) -> Iterator[Problem]:
    options = config.quant
    if options.quant_group_size is not None and options.quant_group_size not in GROUP_SIZES:
        allowed = f"Use one of {', '.join(map(str, GROUP_SIZES))}."
        yield Problem("--quant_group_size", str(options.quant_group_size), "is not a group size", allowed)
    for name in ("gptq_step", "ptq_step", "shift_step", "smooth_step", "smooth_k_piece"):
        if getattr(options, name) < 1:
            yield Problem(f"--{name}", str(getattr(options, name)), "must be 1 or more")
    if options.smooth_alpha is not None and not 0 <= options.smooth_alpha <= 1:
        yield Problem("--smooth_alpha", str(options.smooth_alpha), "must be from 0 to 1")
    if not 0 <= options.gptq_damping < 1:
        yield Problem("--gptq_damping", str(options.gptq_damping), "must be from 0 to below 1")
    if options.max_ppl_increase is not None and options.max_ppl_increase < 0:
        yield Problem("--max_ppl_increase", str(options.max_ppl_increase), "must be 0 or more")
    for name, value in (
        ("per_device_train_batch_size", config.training.per_device_train_batch_size),
        ("per_device_eval_batch_size", config.training.per_device_eval_batch_size),
    ):
        if value < 1:
            yield Problem(f"--{name}", str(value), "must be 1 or more")


def _idle(config: RunConfig, quant_type: str | None) -> Iterator[Problem]:
    """Yield options that would have no effect."""
    options = config.quant
    smoothing = [name for name in ("smooth_all_linears", "smooth_piecewise_search") if getattr(options, name)]
    if options.shift_all_linears and not options.shift:
        yield Problem("--shift_all_linears", "true", "has no effect without shift", "Give --shift as well.")
    if smoothing and not options.smooth:
        yield Problem(f"--{smoothing[0]}", "true", "has no effect without smooth", "Give --smooth as well.")
    if quant_type != A8W8:
        for name in ("shift", "smooth"):
            if getattr(options, name):
                reason = f"changes activations, which {quant_type} leaves as they are"
                yield Problem(f"--{name}", "true", reason, "Use --quant_type A8W8, or leave it out.")
        if options.activation_scale != "per_token":
            yield Problem("--activation_scale", options.activation_scale, "has no effect without A8W8")
    if options.quantize_lm_head and quant_type is None:
        yield Problem("--quantize_lm_head", "true", "has no effect without quant_type", "Give --quant_type WINT8.")
    if options.quantize_lm_head and options.awq:
        reason = "is not done with awq, whose readers expect a head of floats"
        yield Problem("--quantize_lm_head", "true", reason, "Leave it out, or use --task gptq.")
    if options.awq and quant_type != WINT4:
        yield Problem("--awq", "true", f"is for 4-bit weights, not for {quant_type}", "Use --quant_type WINT4.")
    if quant_type == A8W8:
        if config.task == "gptq":
            yield Problem("--quant_type", "A8W8", "rounds activations, gptq only weights", "Use --task ptq.")
        elif config.task != "ptq":
            reason = "needs activations that were measured beforehand"
            yield Problem("--quant_type", "A8W8", reason, "Make a quantized model with --task ptq, and use that.")
        if options.quant_group_size not in (None, -1):
            yield Problem("--quant_group_size", str(options.quant_group_size), "is for weights alone, not for A8W8")
