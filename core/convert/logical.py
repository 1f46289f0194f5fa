"""Weights under our own names, wherever they lie: in a foreign file, or in a model that is in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .dtypes import to_float32
from .transforms import to_ours
from .weights import choose_map, expand, plan_transfers

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..registry.facts import ModelConfig
    from ..registry.family import Family
    from .source import TensorSource
    from .transforms import Shape
    from .weights import Transfer


class LogicalTensors(Protocol):
    """All parameters of one model, one at a time."""

    shapes: Mapping[str, Shape]
    """By name, in the order in which they are best read."""

    def dtype(self, name: str) -> str:
        """Return the floating type that ``read`` returns the parameter in."""

    def read(self, name: str) -> np.ndarray:
        """Return a parameter in our layout, bfloat16 as uint16; possibly a view."""


class FileTensors:
    """The parameters of a model as a foreign file holds them.

    What a file has fused is taken apart at the first read and kept until its other parts have been asked for.
    """

    def __init__(self, source: TensorSource, transfers: Iterable[Transfer], shapes: Mapping[str, Shape]) -> None:
        self._source = source
        self._owners = {name: step for step in transfers for name in step.ours}
        self._waiting: dict[str, np.ndarray] = {}
        self.shapes: Mapping[str, Shape] = {name: shapes[name] for name in self._owners}

    def dtype(self, name: str) -> str:
        found = {self._source.entries[foreign].dtype for foreign in self._owners[name].theirs}
        return found.pop() if len(found) == 1 else "float32"

    def read(self, name: str) -> np.ndarray:
        if name not in self._waiting:
            step = self._owners[name]
            kind = self.dtype(name)
            parts = [self._read_as(foreign, kind) for foreign in step.theirs]
            self._waiting.update(zip(step.ours, to_ours(step.rule, parts), strict=True))
        return self._waiting.pop(name)

    def _read_as(self, foreign: str, kind: str) -> np.ndarray:
        array = self._source.read(foreign)
        stored = self._source.entries[foreign].dtype
        return array if stored == kind else to_float32(array, stored)


class ModelTensors:
    """The parameters of a model in memory."""

    def __init__(self, model: CausalLM) -> None:
        self._parameters = parameters(model)
        self.shapes: Mapping[str, Shape] = {name: tuple(p.shape) for name, p in self._parameters.items()}

    def dtype(self, name: str) -> str:
        return str(self._parameters[name].dtype).removeprefix("paddle.")

    def read(self, name: str) -> np.ndarray:
        array: np.ndarray = self._parameters[name].numpy()
        return array


def open_logical(family: Family, config: ModelConfig, source: TensorSource, shapes: Mapping[str, Shape]) -> FileTensors:
    """Hold a file against the model's parameters and return it under their names.

    Raises:
        WeightError: the two do not fit; the text lists the tensors.
    """
    weight_map = choose_map(family, config, source)
    source.adapt(expand(weight_map, config.num_layers))
    transfers = plan_transfers(weight_map, config.num_layers, source, shapes)
    # The largest first: beside it in memory there is then little of the model yet.
    transfers.sort(key=lambda step: -sum(math.prod(shapes[name]) for name in step.ours))
    return FileTensors(source, transfers, shapes)


def parameters(model: CausalLM) -> dict[str, Any]:
    """Return a model's parameters by name, each once."""
    return dict(model.named_parameters())
