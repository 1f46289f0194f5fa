"""Weights that are not written as floats: what the writer of model directories asks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from .safetensors_writer import Planned
    from .weights import Transfer


class Packing(Protocol):
    """The integer matrices of one model, in the format of their directory."""

    fields: Mapping[str, Any]
    """For ``config.json``, ``quantization_config`` among them."""

    def takes(self, step: Transfer) -> bool:
        """Whether the parameters of a rule are packed: all of them or none."""

    def plan(self, step: Transfer) -> list[Planned]:
        """Return the tensors that they become."""

    def make(self, step: Transfer) -> Iterator[tuple[str, np.ndarray]]:
        """Yield those tensors with their names, in the order of the plan."""
