"""How many parameters a model has, counted on a model that is built without memory for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..launch.framework import import_paddle
from ..registry.facts import ModelConfig
from ..registry.family import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Numbers of parameters; each is 4 bytes, since everything is float32."""

    total: int
    """Every parameter once: a tied head counts with the embedding."""
    multiplied: int
    """Of the matrices that a token is multiplied with: all but the input embedding, the head included."""
    largest: int
    """Of the largest tensor."""


def count_parameters(family: Family, model: ModelConfig) -> ParameterCount:
    """Count exactly, whatever the size: Paddle builds the layers and leaves their memory out. Imports Paddle."""
    with import_paddle().LazyGuard():
        shapes = [parameter.shape for parameter in family.build_model(model).parameters()]
    sizes = [math.prod(shape) for shape in shapes]
    matrices = sum(size for size, shape in zip(sizes, shapes, strict=True) if len(shape) >= 2)
    embedding = 0 if model.tie_embeddings else model.vocab_size * model.hidden_size
    return ParameterCount(total=sum(sizes), multiplied=matrices - embedding, largest=max(sizes))
