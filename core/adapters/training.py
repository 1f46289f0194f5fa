"""The adapter of a training run: a new one as the options say, or one that training goes on from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..config.option import ADAPTING
from .files import collect, new_adapter, open_adapter, put_adapter, put_together, save_adapter
from .lora import lora_layers
from .prefix import apply_prefix
from .prefix_files import save_prefix
from .prefix_settings import PrefixSettings
from .settings import LoraSettings

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..convert.logical import LogicalTensors
    from ..registry.family import Family
    from ..run import Run


class TrainedAdapter(Protocol):
    """What is trained instead of the model, and how it is written."""

    def save(self, model: CausalLM, directory: Path, *, base: str, weights: LogicalTensors | None = None) -> None:
        """Write the adapter of ``model`` in PEFT's layout.

        Args:
            model: with the adapter.
            directory: gets all files or none.
            base: the model that it belongs to, for people and for PEFT.
            weights: the values of all that is trained, where the model itself has not all of them.
        """


@dataclass(frozen=True, slots=True)
class TrainedLora:
    """Low-rank additions to linear layers (``TrainedAdapter``)."""

    family: Family
    settings: LoraSettings

    def save(self, model: CausalLM, directory: Path, *, base: str, weights: LogicalTensors | None = None) -> None:
        layers = collect(model) if weights is None else put_together(weights.shapes, weights.read)
        save_adapter(layers, self.family, model.config, self.settings, directory, base=base)


@dataclass(frozen=True, slots=True)
class TrainedPrefix:
    """Keys and values before all others (``TrainedAdapter``)."""

    def save(self, model: CausalLM, directory: Path, *, base: str, weights: LogicalTensors | None = None) -> None:
        save_prefix(model, directory, base=base, read=None if weights is None else weights.read)


def trains_adapter(run: Run) -> bool:
    """Whether the task trains an adapter instead of the model."""
    return run.config.task in ADAPTING or (run.config.task == "dpo" and run.config.adapter.use_lora)


def add_adapter(run: Run, model: CausalLM) -> TrainedAdapter:
    """Freeze the model and give it the adapter that is trained.

    A LoRA adapter that is gone on from keeps its own rank, scale and targets; its dropout is that of the options.

    Raises:
        RefusedError: a target is no layer of the model, or the adapter is of a kind that is not supported.
        DataError: the folder holds no adapter.
        WeightError: the adapter does not fit the model.
    """
    options = run.config.adapter
    if run.config.task == "prefix_tuning":
        prefix = PrefixSettings.from_options(options, model.config)
        apply_prefix(model, prefix, seed=run.config.training.seed)
        return TrainedPrefix()
    if options.lora_path is None:
        settings = LoraSettings.from_options(options)
        new_adapter(model, run.family, settings, seed=run.config.training.seed)
        return TrainedLora(run.family, settings)
    adapter = open_adapter(run.family, run.model_config, Path(options.lora_path))
    settings = replace(adapter.settings, dropout=options.lora_dropout)
    put_adapter(model, replace(adapter, settings=settings))
    if run.config.task == "dpo":  # the reference is the model with the adapter as it is now
        for layer in lora_layers(model).values():
            layer.remember()
    return TrainedLora(run.family, settings)


def adapter_identity(run: Run) -> dict[str, Any]:
    """Return what must be the same for a run to go on from a checkpoint of its adapter."""
    if not trains_adapter(run):
        return {}
    from ..trainer.identity import fingerprint_weights

    fields = asdict(run.config.adapter)
    path = fields.pop("lora_path")
    fields["initial"] = fingerprint_weights(Path(path)) if path else "new"
    return {f"adapter.{name}": value for name, value in fields.items()}


def adapter_rates(model: CausalLM, ratio: float) -> dict[str, float]:
    """Return factors on the learning rate: the second matrix of each product learns ``ratio`` times as fast.

    Source: Hayou et al. 2024, arXiv:2402.12354, section 4.
    """
    return {} if ratio == 1.0 else {f"{name}.lora_B": ratio for name in lora_layers(model)}
