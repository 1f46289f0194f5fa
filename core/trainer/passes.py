"""Forward passes through a model, wherever its layers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import paddle

from .inputs import to_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch


class Passes(Protocol):
    """Goes through batches without gradients: in this process (``WholeModel``), or on the stages of a pipeline."""

    model: CausalLM
    """What this rank has of it."""

    def forward(
        self, batches: Sequence[Batch], measure: Callable[[Tensor, Batch], Sequence[float]]
    ) -> list[list[float]]:
        """Return what ``measure`` says of each batch and its final hidden states [B, S, H], on every stage."""

    def through(self, model: CausalLM) -> Passes:
        """Return the passes through another model of the same shape that is cut alike."""


class WholeModel:
    """A model that this rank has from the embedding to the head (``Passes``)."""

    def __init__(self, model: CausalLM) -> None:
        """Go through ``model``, in the mode it is in."""
        self.model = model

    def forward(
        self, batches: Sequence[Batch], measure: Callable[[Tensor, Batch], Sequence[float]]
    ) -> list[list[float]]:
        with paddle.no_grad():
            return [list(measure(final_hidden(self.model, batch), batch)) for batch in batches]

    def through(self, model: CausalLM) -> WholeModel:
        return WholeModel(model)


def final_hidden(model: CausalLM, batch: Batch) -> Tensor:
    """Return the hidden states [B, S, H] in front of the head.

    Raises:
        DataError: a token id is not in the model's vocabulary.
    """
    inputs = to_inputs(batch, model.config)
    hidden_BSH: Tensor = model(inputs.ids_BS, inputs.positions, inputs.mask)
    return hidden_BSH
