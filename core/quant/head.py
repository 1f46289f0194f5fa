"""The head as one more quantized layer.

Of a small model it is a large part: a fifth of SmolLM2-135M, and the largest matrix that every new token reads. Where
the head is the embedding (tied), tokens are still looked up in floats, so that the model gets a head of its own: a
larger file, and faster answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import Problem, RefusedError
from .groups import HEAD, head_group

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import BlockContext, CausalLM
    from ..convert.logical import LogicalTensors
    from ..convert.transforms import Shape
    from ..registry.facts import ModelConfig
    from ..registry.family import Family

WEIGHT = f"{HEAD}.weight"
EMBEDDING = "embed_tokens.weight"


def with_own_head(family: Family, config: ModelConfig) -> ModelConfig:
    """Return the config of the model with a head that is a layer of its own.

    Raises:
        RefusedError: the family states no head that may be quantized.
    """
    own = replace(config, tie_embeddings=False)
    if head_group(family.quantizable_layers(own) or ()) is None:
        reason = f"cannot be done: {family.card.name} states no head of this model that may be quantized"
        raise RefusedError(Problem("--quantize_lm_head", "true", reason, "Leave it out."))
    return own


class UntiedTensors:
    """The weights of a model whose head is its embedding, with a head of its own (``LogicalTensors``)."""

    def __init__(self, tied: LogicalTensors) -> None:
        """Add the head to the weights; it is read out of the embedding."""
        self._tied = tied
        self.shapes: Mapping[str, Shape] = {**tied.shapes, WEIGHT: tuple(reversed(tied.shapes[EMBEDDING]))}

    def dtype(self, name: str) -> str:
        return self._tied.dtype(EMBEDDING if name == WEIGHT else name)

    def read(self, name: str) -> np.ndarray:
        return self._tied.read(EMBEDDING).T if name == WEIGHT else self._tied.read(name)


def head_weight(model: CausalLM) -> np.ndarray:
    """Return the matrix of a model's head, float32 [V, H]."""
    if model.config.tie_embeddings:
        return np.asarray(model.get_sublayer("embed_tokens").weight.numpy())
    return np.ascontiguousarray(model.get_sublayer(HEAD).weight.numpy().T)


class HeadBlock:
    """Final norm and head, in the place of a block."""

    def __init__(self, model: CausalLM) -> None:
        self._model = model

    def __call__(self, hidden_BSH: Tensor, context: BlockContext, cache: None = None) -> Tensor:
        return self._model.head(self._model.finish(hidden_BSH))
