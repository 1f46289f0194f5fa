"""What a task is handed: the resolved request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .config.adapters import AdapterOptions
from .config.evaluation import EvaluationOptions
from .config.quantization import QuantOptions
from .config.serving import ServeOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config.groups import ConvertOptions, DataOptions, DecodingOptions, LaunchOptions, ModelOptions
    from .config.training import TrainingOptions
    from .registry.facts import ModelConfig
    from .registry.family import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """All options of one run, checked, with where each value came from."""

    task: str
    family: str
    model: ModelOptions
    data: DataOptions
    training: TrainingOptions
    decoding: DecodingOptions
    convert: ConvertOptions
    launch: LaunchOptions
    adapter: AdapterOptions = field(default_factory=AdapterOptions)
    serve: ServeOptions = field(default_factory=ServeOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    quant: QuantOptions = field(default_factory=QuantOptions)
    origins: Mapping[str, str]
    """``default``, ``flag``, or the file's path, by option name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A task's only argument: ``run(run) -> int`` returns the exit status."""

    config: RunConfig
    family: Family
    model_config: ModelConfig
    """Of ``--model_size``, or read from the model directory's ``config.json`` or the GGUF file's header."""
