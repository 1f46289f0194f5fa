"""How many parameters a model has, counted on a model that is built without memory for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..adapters.settings import LoraSettings, read_settings
from ..launch.framework import import_paddle
from ..registry.facts import ModelConfig
from ..registry.family import Family
from ..run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Numbers of parameters; each is 4 bytes, since everything is float32."""

    total: int
    """Every parameter once: a tied head counts with the embedding."""
    multiplied: int
    """Of the matrices that a token is multiplied with: all but the input embedding, the head included."""
    largest: int
    """Of the largest tensor."""
    trained: int
    """Those that learn: all of the model's, or an adapter's, which are not in ``total``."""
    is_frozen: bool = False
    """The model itself does not learn."""


def count_parameters(family: Family, model: ModelConfig, lora: LoraSettings | None = None) -> ParameterCount:
    """Count exactly, whatever the size: Paddle builds the layers and leaves their memory out. Imports Paddle.

    Raises:
        RefusedError: the adapter names layers that the model has not.
    """
    with import_paddle().LazyGuard():
        network = family.build_model(model)
    shapes = [parameter.shape for parameter in network.parameters()]
    sizes = [math.prod(shape) for shape in shapes]
    matrices = sum(size for size, shape in zip(sizes, shapes, strict=True) if len(shape) >= 2)
    embedding = 0 if model.tie_embeddings else model.vocab_size * model.hidden_size
    trained = sum(sizes)
    if lora is not None:
        from ..adapters.lora import find_targets

        layers = [network.get_sublayer(name).weight.shape for name in find_targets(network, family, lora)]
        trained = sum(lora.rank * (rows + columns) + (columns if lora.dora else 0) for rows, columns in layers)
    return ParameterCount(
        total=sum(sizes), multiplied=matrices - embedding, largest=max(sizes), trained=trained,
        is_frozen=lora is not None,
    )  # fmt: skip


def trained_lora(run: Run) -> LoraSettings | None:
    """Return the LoRA adapter that a run trains, if it does."""
    if run.config.task != "lora":
        return None
    options = run.config.adapter
    return read_settings(Path(options.lora_path)) if options.lora_path else LoraSettings.from_options(options)
