"""``--task ptq`` and ``--task gptq``: a model in, a quantized Hugging Face directory with its report out."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.progress import progress
from ..errors import Problem, QuantizationError, RefusedError
from ..parallel.join import mesh_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..convert.logical import LogicalTensors
    from ..registry.facts import ModelConfig
    from ..run import Run
    from .calibration import CalibrationData
    from .methods import LayerRecord, Method
    from .quantize import Quantized
    from .ranks import Ranks

_log = logging.getLogger("llm_run.quant")


def run(run: Run) -> int:
    """Quantize a model and write it to ``output_dir``, with a report of what that did to it.

    Raises:
        RefusedError: the output folder is in use, a group size does not fit, or there are too few samples.
        DataError: a record is malformed.
        WeightError: the weights are damaged, or do not fit the model.
        QuantizationError: perplexity rises by more than is allowed; nothing is written.
        DistributedError: another process has gone or is late.
    """
    from ..convert.tokenizer import find_chat_template, load_tokenizer
    from .calibration import open_calibration
    from .lending import lend
    from .plan import STEPS, choose_method, describe, num_calibration_batches
    from .ranks import Ranks

    source, target = Path(run.config.model.model_name_or_path or ""), _target(run)
    opened = _open(run, source)
    method = choose_method(run, opened.in_sizes)
    place = run.config.model.tokenizer_name_or_path
    tokenizer = load_tokenizer(run.family, run.model_config, source if place is None else Path(place))
    template = find_chat_template(run.family, run.model_config, source, run.config.model.chat_template)
    num_batches = num_calibration_batches(method, run)
    data = open_calibration(run, tokenizer, template, steps_option=STEPS[run.config.task], num_batches=num_batches)
    _log.info("%s: %s", source, describe(method))
    with mesh_of(run.config.launch) as mesh:
        ranks = Ranks(mesh.group("mp"))
        quantized = _quantize(run, opened, method, data, ranks)
        _check_increase(run, quantized)
        if ranks.is_main:
            facts = {"quantization": _facts(run, method, quantized, data)}
            _write(run, quantized, method, opened, target, facts, (tokenizer, template, str(source)), ranks)
        else:
            lend(quantized.model, ranks)
    return 0


def _quantize(run: Run, opened: _Opened, method: Method, data: CalibrationData, ranks: Ranks) -> Quantized:
    from .quantize import quantize_by_blocks

    with_head, num_layers = run.config.quant.quantize_lm_head, opened.config.num_layers
    shown = ranks.is_main and not run.config.training.disable_tqdm
    with progress("quantizing", num_layers + with_head, shown=shown) as advance:
        return quantize_by_blocks(
            run.family, opened.config, opened.tensors, method,
            calibration=data.calibration, evaluation=data.evaluation, with_head=with_head,
            on_block=_reporter(advance, num_layers), ranks=ranks,
        )  # fmt: skip


def _target(run: Run) -> Path:
    assert run.config.training.output_dir is not None, "core/config/check.py asks for it"
    target = Path(run.config.training.output_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RefusedError(Problem("--output_dir", str(target), "is not an empty folder", "Give a new one."))
    return target


@dataclasses.dataclass(frozen=True, slots=True)
class _Opened:
    """The weights that are quantized."""

    config: ModelConfig
    """Of the model that comes out."""
    tensors: LogicalTensors
    in_sizes: list[int]
    """Inputs of all layers that are quantized."""
    bytes_in_16_bits: int
    """Of the model as it was."""


def _open(run: Run, source: Path) -> _Opened:
    """Open the weights.

    Raises:
        RefusedError: a head that cannot be quantized is to be.
        WeightError: the weights do not fit the model.
    """
    from ..convert.load import build_empty
    from ..convert.logical import open_logical, parameters
    from ..convert.source import open_tensors
    from .groups import groups_of_block
    from .head import WEIGHT, UntiedTensors, with_own_head

    model = build_empty(run.family, run.model_config)
    shapes = {name: tuple(p.shape) for name, p in parameters(model).items()}
    opened = open_tensors(source)
    coarse = sorted({entry.storage for entry in opened.entries.values() if entry.storage.startswith(("Q", "IQ"))})
    if coarse:
        _log.warning("%s: its weights were quantized before (%s); errors add up", source, ", ".join(coarse))
    groups = groups_of_block(run.family.quantizable_layers(run.model_config) or (), 0)
    in_sizes = [shapes[f"{name}.weight"][0] for group in groups for name in group.linears]
    config = run.model_config
    with_head = run.config.quant.quantize_lm_head
    own = with_own_head(run.family, config) if with_head else config
    tensors: LogicalTensors = open_logical(run.family, config, opened, shapes)
    if with_head:
        if config.tie_embeddings:
            _log.info("%s: its head is its embedding; the result has a head of its own", source)
            tensors = UntiedTensors(tensors)
        in_sizes.append(tensors.shapes[WEIGHT][0])
    return _Opened(own, tensors, in_sizes, 2 * sum(map(math.prod, shapes.values())))


def _reporter(advance: Callable[[float], None], num_layers: int) -> Callable[[int, list[LayerRecord]], None]:
    def report(index: int, records: list[LayerRecord]) -> None:
        advance(1)
        errors = [
            f"{record.name.removeprefix(f'blocks.{index}.')} "
            f"{record.weight_error if record.output_error is None else record.output_error:.4f}"
            for record in records
        ]
        place = f"block {index}" if index < num_layers else "head"
        _log.info("%s, relative errors: %s", place, ", ".join(errors))

    return report


def _check_increase(run: Run, quantized: Quantized) -> None:
    comparison, limit = quantized.comparison, run.config.quant.max_ppl_increase
    _log.info(
        "perplexity %.4f -> %.4f (%+.2f %%), largest logit difference %.3f, same likeliest token %.1f %%",
        comparison.ppl_before, comparison.ppl_after, comparison.ppl_increase,
        comparison.max_logit_difference, 100 * comparison.same_top_token,
    )  # fmt: skip
    if limit is None or comparison.ppl_increase <= limit:
        return
    worst = max(quantized.layers, key=lambda record: record.output_error or record.weight_error)
    raise QuantizationError(
        f"--max_ppl_increase: perplexity rises from {comparison.ppl_before:.4f} to {comparison.ppl_after:.4f}, by "
        f"{comparison.ppl_increase:.2f} per cent, more than {limit:g}. Nothing was written. The largest error is that "
        f"of {worst.name}. Use more bits, smaller groups, more calibration data, gptq or awq, or allow more."
    )


def _facts(run: Run, method: Method, quantized: Quantized, data: CalibrationData) -> dict[str, Any]:
    """Return what the report says of the quantization."""
    from .plan import describe
    from .settings import read_quant_type

    comparison = quantized.comparison
    return {
        "quant_type": read_quant_type(run.config.quant, run.config.task),
        "method": describe(method),
        "options": {
            name: value
            for name, value in dataclasses.asdict(run.config.quant).items()
            if run.config.origins.get(name, "default") != "default"
        },
        "calibration": {
            "files": list(map(str, data.calibration_files)),
            "samples": sum(len(batch.ids_BS) for batch in data.calibration),
            "tokens": sum(int((batch.segments_BS > 0).sum()) for batch in data.calibration),
        },
        "comparison": {
            "files": list(map(str, data.evaluation_files)),
            "tokens": comparison.num_tokens,
            "perplexity_before": comparison.ppl_before,
            "perplexity_after": comparison.ppl_after,
            "perplexity_increase_percent": comparison.ppl_increase,
            "max_logit_difference": comparison.max_logit_difference,
            "same_likeliest_token": comparison.same_top_token,
        },
        "layers": [dataclasses.asdict(record) for record in quantized.layers],
    }


def _write(
    run: Run,
    quantized: Quantized,
    method: Method,
    opened: _Opened,
    target: Path,
    facts: dict[str, Any],
    origin: tuple[Any, Any, str],
    ranks: Ranks,
) -> None:
    from ..convert.save import ModelParts, write_model_directory
    from .directory import ModelPacking, QuantizedTensors
    from .lending import lent_layers
    from .plan import quantization_config
    from .quantize import complete

    tokenizer, template, source = origin
    complete(quantized.model, opened.tensors)
    tensors, size_before = opened.tensors, opened.bytes_in_16_bits
    quantization = facts["quantization"]
    quantization["quantized_bytes"] = sum(record.num_bytes for record in quantized.layers)
    quantization["bytes_in_16_bits"] = size_before
    stored = {name: tensors.dtype(name) for name in tensors.shapes}
    options = run.config.convert
    with lent_layers(quantized.model, ranks) as layers:
        parts = ModelParts(
            family=run.family, config=opened.config, tensors=QuantizedTensors(quantized.model, stored, layers),
            tokenizer=tokenizer, chat_template=template, source=source, facts=facts,
            packing=ModelPacking(quantized.model, quantization_config(method, quantized.model), layers),
        )  # fmt: skip
        report = write_model_directory(parts, target, dtype=options.save_dtype, max_shard_gb=options.max_shard_size)
    size = sum(file["bytes"] for name, file in report["files"].items() if name.endswith(".safetensors"))
    comparison = quantized.comparison
    print(
        f"{target}: {size / 1e6:.1f} MB ({size_before / 1e6:.1f} MB in 16 bits), perplexity "
        f"{comparison.ppl_before:.3f} -> {comparison.ppl_after:.3f} ({comparison.ppl_increase:+.2f} %). "
        "See report.json."
    )
