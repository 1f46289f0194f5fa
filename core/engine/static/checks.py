"""What is wrong with a request to export, or to run what was exported; seen from the options. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import Problem
from .manifest import is_exported

if TYPE_CHECKING:
    from ...run import RunConfig

OF_THE_GRAPH = ("lora_path", "prefix_path", "quant_type", "quant_group_size")
"""Options of a model in memory that are decided when it is exported."""
OF_THE_ENGINE = ("num_draft_tokens", "draft_model", "cachekv_int8", "activations_int8")
OF_KERNELS = ("use_flash_attention", "use_fused_rms_norm", "use_fused_rope")


def check_export(config: RunConfig) -> list[Problem]:
    """Return what is wrong with ``--task export`` or with ``--mode``."""
    if config.decoding.mode == "static":
        return list(_static(config))
    path = config.model.model_name_or_path
    problems = []
    if path is not None and is_exported(Path(path)):
        remedy = "Use --task generate or chat with --mode static, or give the model that it was made from."
        problems.append(Problem("--model_name_or_path", path, "holds an exported graph and no weights", remedy))
    prefix = config.convert.model_prefix
    if config.task == "export" and (not prefix or prefix != Path(prefix).name or prefix.startswith(".")):
        problems.append(Problem("--model_prefix", f"'{prefix}'", "is no file name", "Leave it out, or use letters."))
    return problems


def _static(config: RunConfig) -> Iterator[Problem]:
    path = config.model.model_name_or_path
    if path is None:
        yield Problem("--mode", "static", "needs an exported directory", "Give it with --model_name_or_path.")
    elif Path(path).exists() and not is_exported(Path(path)):
        remedy = "Make one with --task export, or leave --mode out."
        yield Problem("--model_name_or_path", path, "holds no exported graph, which --mode static runs", remedy)
    for names, reason, remedy in (
        (OF_THE_GRAPH, "is part of an exported graph, and cannot be added to it", "Give it to --task export."),
        (OF_THE_ENGINE, "is not done with an exported graph", "Leave it out, or leave --mode out."),
        (OF_KERNELS, "has no effect on an exported graph, which holds its own operators", "Leave it out."),
    ):
        for name in names:
            value = next(
                found
                for group in (config.adapter, config.quant, config.decoding, config.model)
                if (found := getattr(group, name, group)) is not group
            )
            if value not in (None, 0, False):
                yield Problem(f"--{name}", str(value), reason, remedy)
