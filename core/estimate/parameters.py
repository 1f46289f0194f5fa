"""How many parameters a model has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shapes import ModelShapes


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Numbers of parameters; each is 4 bytes, since everything is float32."""

    total: int
    """Every parameter once: a tied head counts with the embedding."""
    multiplied: int
    """Of the matrices that a token is multiplied with: all but the input embedding, the head included."""
    trained: int
    """Those that learn: all of the model's, or an adapter's, which are not in ``total``."""
    is_frozen: bool = False
    """The model itself does not learn."""


def count_parameters(shapes: ModelShapes) -> ParameterCount:
    """Count exactly, whatever the size."""
    sizes = {name: math.prod(shape) for name, shape in shapes.model.items()}
    matrices = sum(size for name, size in sizes.items() if len(shapes.model[name]) >= 2)
    config = shapes.config
    embedding = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    total = sum(sizes.values())
    trained = sum(map(math.prod, shapes.adapter().values())) if shapes.is_frozen else total
    return ParameterCount(
        total=total, multiplied=matrices - embedding, trained=trained, is_frozen=shapes.is_frozen,
    )  # fmt: skip
