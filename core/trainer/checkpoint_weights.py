"""The weights of a whole model, out of the slices that ranks have written. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .tensor_files import TensorReader


class CheckpointWeights:
    """The parameters in a checkpoint, each put together when it is read (``LogicalTensors``)."""

    def __init__(self, reader: TensorReader, names: Iterable[str]) -> None:
        """Take the parameters of these names, which the checkpoint has under ``model/``."""
        self._reader = reader
        self.shapes: Mapping[str, tuple[int, ...]] = {name: reader.index[f"model/{name}"].shape for name in names}

    def dtype(self, name: str) -> str:
        """Return the type of a parameter."""
        return self._reader.index[f"model/{name}"].dtype

    def read(self, name: str) -> np.ndarray:
        """Return a whole parameter."""
        return self._reader.read(f"model/{name}")
