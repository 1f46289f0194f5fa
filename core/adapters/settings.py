"""What a LoRA adapter is, as the options or an adapter's own configuration file say it. Imports no Paddle."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..convert.fields import quantization_fields
from ..errors import DataError, Problem, RefusedError
from ..quant.settings import GROUP_SIZES

if TYPE_CHECKING:
    from ..config.adapters import AdapterOptions
    from ..run import Run

Number = TypeVar("Number", int, float)

PEFT_CONFIG, PADDLENLP_CONFIG = "adapter_config.json", "lora_config.json"
ALL_LINEARS = "all"
NF4, QUANTIZED_BITS = "nf4", {"weight_only_int8": 8, "weight_only_int4": 4}
"""What ``weight_quantize_algo`` may be."""
HARMLESS: dict[str, tuple[Any, ...]] = {
    "bias": ("none",), "modules_to_save": (None, []), "layers_to_transform": (None, []), "use_qalora": (False, None),
    "lora_bias": (False, None), "trainable_token_indices": (None, []), "target_parameters": (None, []),
    "megatron_config": (None,), "layer_replication": (None, []), "use_bdlora": (None, False),
    "alora_invocation_tokens": (None, []),
}  # fmt: skip
"""Fields of PEFT's file that would change the numbers, and the values that do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Rank, scale and targets of an adapter."""

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    pissa: bool = False
    """The adapter begins as the largest singular values of the matrix instead of as nothing."""
    targets: tuple[str, ...] = ()
    """Last components of layer names, regular expressions on whole names, or ``all``; empty: the family's own."""

    @property
    def reads_matrices(self) -> bool:
        """Whether what the adapter begins as is computed from the matrices that it is added to."""
        return self.dora or self.pissa

    @property
    def scaling(self) -> float:
        """Factor on the adapter's product.

        Source: Hu et al. 2021, arXiv:2106.09685, section 4.1 (alpha/r); Kalajdzievski 2023, arXiv:2312.03732,
        theorem 3.2 (alpha/sqrt(r)).
        """
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @classmethod
    def from_options(cls, options: AdapterOptions) -> LoraSettings:
        """Read the options; alpha is twice the rank where nobody says otherwise, as in the seed."""
        alpha = 2.0 * options.lora_rank if options.lora_alpha is None else options.lora_alpha
        return cls(
            rank=options.lora_rank, alpha=alpha, dropout=options.lora_dropout, rslora=options.rslora,
            dora=options.use_dora, pissa=options.pissa, targets=tuple(options.lora_target_modules),
        )  # fmt: skip


def check_lora(options: AdapterOptions) -> list[Problem]:
    """Return what is wrong with the options of a new adapter."""
    problems = []
    if options.lora_rank < 1:
        problems.append(Problem("--lora_rank", str(options.lora_rank), "must be 1 or more"))
    if options.lora_alpha is not None and not (options.lora_alpha > 0 and math.isfinite(options.lora_alpha)):
        problems.append(Problem("--lora_alpha", str(options.lora_alpha), "must be above 0"))
    if not 0 <= options.lora_dropout < 1:
        problems.append(Problem("--lora_dropout", str(options.lora_dropout), "must be 0 or more and below 1"))
    ratio = options.loraplus_lr_ratio
    if not (ratio > 0 and math.isfinite(ratio)):
        problems.append(Problem("--loraplus_lr_ratio", str(ratio), "must be above 0"))
    problems += _check_base(options)
    if options.pissa and options.use_dora:
        problems.append(Problem("--pissa", "true", "excludes use_dora", "Choose one of them."))
    for target in options.lora_target_modules:
        try:
            re.compile(target)
        except re.error as error:
            problems.append(Problem("--lora_target_modules", f"'{target}'", f"is no regular expression: {error}"))
    return problems


def _check_base(options: AdapterOptions) -> Iterator[Problem]:
    """Yield what is wrong with how the frozen model is rounded."""
    algorithm, size = options.weight_quantize_algo, options.weight_blocksize
    if size is not None and algorithm is None:
        reason, remedy = "has no effect without weight_quantize_algo", f"Give --weight_quantize_algo {NF4}."
        yield Problem("--weight_blocksize", str(size), reason, remedy)
    elif size is not None and algorithm == NF4 and (size < 2 or size % 2):
        yield Problem("--weight_blocksize", str(size), "is not an even number of 2 or more", "Use 64.")
    elif size is not None and algorithm != NF4 and size not in GROUP_SIZES:
        allowed = f"Use one of {', '.join(map(str, GROUP_SIZES))}."
        yield Problem("--weight_blocksize", str(size), f"is not a group size of {algorithm}", allowed)
    if options.weight_double_quant and algorithm != NF4:
        reason = f"rounds the scales of {NF4}, which is not asked for"
        yield Problem("--weight_double_quant", "true", reason, f"Give --weight_quantize_algo {NF4}, or leave it out.")


def check_lora_path(path: str | None) -> list[Problem]:
    """Return what is wrong with the folder of an adapter, before a model is loaded for it."""
    if path is None or Path(path).is_dir():
        return []
    return [Problem("--lora_path", path, "is no folder", "Name the folder of an adapter, as --task lora writes it.")]


def check_merge(path: str | None) -> list[Problem]:
    """Return why an adapter cannot be merged into what lies at ``path``: it is integers."""
    fields = None if path is None else quantization_fields(Path(path))
    if path is None or fields is None:
        return []
    reason = (
        f"is quantized ({fields.get('quant_method', 'by an unknown method')}): nothing can be added to its integers"
    )
    remedy = "Give the model that it was made from, or leave them apart: the tasks that use a model take --lora_path."
    return [Problem("--model_name_or_path", path, reason, remedy)]


def trained_lora(run: Run) -> LoraSettings | None:
    """Return the LoRA adapter that a run trains, if it does."""
    options = run.config.adapter
    if run.config.task != "lora" and not (run.config.task == "dpo" and options.use_lora):
        return None
    return read_settings(Path(options.lora_path)) if options.lora_path else LoraSettings.from_options(options)


def read_settings(directory: Path) -> LoraSettings:
    """Read an adapter's configuration, in PEFT's or PaddleNLP's spelling.

    Raises:
        DataError: there is none, or it is malformed.
        RefusedError: it asks for what would change the numbers and is not supported.
    """
    for name, read in ((PEFT_CONFIG, _from_peft), (PADDLENLP_CONFIG, _from_paddlenlp)):
        path = directory / name
        if path.is_file():
            try:
                fields = json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, OSError) as error:
                raise DataError(f"{path}: is not readable JSON ({error}).") from error
            if not isinstance(fields, dict):
                raise DataError(f"{path}: is not a JSON object.")
            return read(path, fields)
    looked = f"{PEFT_CONFIG} (PEFT) and {PADDLENLP_CONFIG} (PaddleNLP)"
    raise DataError(f"{directory}: holds no adapter. Looked for {looked}.")


def peft_fields(settings: LoraSettings, modules: Iterable[str], ranks: Mapping[str, int], base: str) -> dict[str, Any]:
    """Return ``adapter_config.json``.

    Args:
        settings: of the adapter.
        modules: what is adapted, by Hugging Face module name or last component.
        ranks: of the modules whose rank is not that of the settings.
        base: name or path of the model that it was trained on.
    """
    scale = settings.scaling
    alphas = {name: scale * (math.sqrt(rank) if settings.rslora else rank) for name, rank in ranks.items()}
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": settings.rank,
        "lora_alpha": _plain(settings.alpha), "lora_dropout": settings.dropout, "use_rslora": settings.rslora,
        "use_dora": settings.dora, "target_modules": sorted(modules), "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": True, "rank_pattern": dict(ranks),
        "alpha_pattern": {name: _plain(alpha) for name, alpha in alphas.items()}, "modules_to_save": None,
    }  # fmt: skip


def _from_peft(path: Path, fields: Mapping[str, Any]) -> LoraSettings:
    kind = str(fields.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise RefusedError(Problem(f"{path}: peft_type", f"'{kind}'", "is not LORA"))
    wrong = [
        Problem(f"{path}: {name}", str(fields[name]), "is not supported", "Merge the adapter with PEFT first.")
        for name, values in HARMLESS.items()
        if name in fields and fields[name] not in values
    ]
    if wrong:
        raise RefusedError(*wrong)
    targets = fields.get("target_modules") or ()
    return LoraSettings(
        rank=_number(path, fields, "r", int), alpha=_number(path, fields, "lora_alpha", float),
        dropout=float(fields.get("lora_dropout") or 0.0), rslora=bool(fields.get("use_rslora", False)),
        dora=bool(fields.get("use_dora", False)),
        targets=(targets,) if isinstance(targets, str) else tuple(map(str, targets)),
    )  # fmt: skip


def _from_paddlenlp(path: Path, fields: Mapping[str, Any]) -> LoraSettings:
    if fields.get("enable_lora_list"):
        raise RefusedError(Problem(f"{path}: enable_lora_list", "", "is not supported", "Merge it with PaddleNLP."))
    if fields.get("trainable_bias") not in (None, "", "none"):
        raise RefusedError(Problem(f"{path}: trainable_bias", str(fields["trainable_bias"]), "is not supported"))
    targets = fields.get("target_modules") or ()
    return LoraSettings(
        rank=_number(path, fields, "r", int), alpha=_number(path, fields, "lora_alpha", float),
        dropout=float(fields.get("lora_dropout") or 0.0), rslora=bool(fields.get("rslora", False)),
        targets=(targets,) if isinstance(targets, str) else tuple(map(str, targets)),
    )  # fmt: skip


def _number(path: Path, fields: Mapping[str, Any], name: str, kind: type[Number]) -> Number:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise DataError(f"{path}: {name} is {value!r}, not a number above 0.")
    return kind(value)


def _plain(value: float) -> int | float:
    """Return a whole number as an int, as people write it."""
    return int(value) if value == int(value) else value
