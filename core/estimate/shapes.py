"""The parameters of a run's model: names and shapes, found on a model that is built without memory for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..adapters.settings import LoraSettings, trained_lora
from ..launch.framework import import_paddle
from ..parallel.slices import Part

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..registry.facts import ModelConfig
    from ..registry.family import Family
    from ..run import Run

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShapes:
    """What one process would hold."""

    family: Family
    config: ModelConfig
    model: Shapes
    """Of every parameter once: a tied head is the embedding."""
    lora: LoraSettings | None = None
    targets: tuple[str, ...] = ()
    """Layers that the adapter adds to."""
    prefix: Shapes = field(default_factory=dict)

    @property
    def is_frozen(self) -> bool:
        """Whether an adapter learns instead of the model."""
        return self.lora is not None or bool(self.prefix)

    def adapter(self, parts: Mapping[str, Part] | None = None) -> dict[str, tuple[int, ...]]:
        """Return what the adapter trains.

        Args:
            parts: what a rank has of the model's parameters; all of them by default.
        """
        found = dict(self.prefix)
        if self.lora is None:
            return found
        from ..adapters.lora_split import adapter_parts

        for name in self.targets:
            weight = f"{name}.weight"
            part = Part.whole(self.model[weight]) if parts is None else parts.get(weight)
            if part is None:  # of another stage
                continue
            leaves = adapter_parts(part, self.lora.rank, is_first=True)
            if not self.lora.dora:
                del leaves["lora_magnitude"]
            found |= {f"{name}.{leaf}": held.local_shape for leaf, held in leaves.items()}
        return found


def find_shapes(run: Run) -> ModelShapes:
    """Return the parameters of a run's model, and of the adapter that it trains if it does. Imports Paddle.

    Raises:
        RefusedError: the adapter names layers that the model has not.
    """
    found = shapes_of(run.family, run.model_config, trained_lora(run))
    if run.config.task != "prefix_tuning":
        return found
    from ..adapters.prefix import Prefix
    from ..adapters.prefix_settings import PrefixSettings

    settings = PrefixSettings.from_options(run.config.adapter, run.model_config)
    with import_paddle().LazyGuard():
        prefix = Prefix(run.model_config, settings)
    shapes = {f"prefix.{name}": tuple(parameter.shape) for name, parameter in prefix.named_parameters()}
    return ModelShapes(family=found.family, config=found.config, model=found.model, prefix=shapes)


def shapes_of(family: Family, config: ModelConfig, lora: LoraSettings | None = None) -> ModelShapes:
    """Return the parameters of a model and of a low-rank adapter. Imports Paddle.

    Raises:
        RefusedError: the adapter names layers that the model has not.
    """
    with import_paddle().LazyGuard():
        network = family.build_model(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    targets = () if lora is None else _targets(network, family, lora)
    return ModelShapes(family=family, config=config, model=shapes, lora=lora, targets=targets)


def _targets(network: CausalLM, family: Family, lora: LoraSettings) -> tuple[str, ...]:
    from ..adapters.lora import find_targets

    return tuple(find_targets(network, family, lora))
