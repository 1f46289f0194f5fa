"""How a rank holds the parameters that are trained: whole, or a share of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from ..ops import global_norm
from .slices import Part

if TYPE_CHECKING:
    from paddle import Tensor


class Holding(Protocol):
    """The trained parameters of one rank, their gradients, and when ranks talk about them.

    A step is: for each micro-batch a forward pass and ``backward``; then ``reduce``, the update of ``tensors`` by
    ``gradients``, and ``publish``. Every rank calls the same methods in the same order.
    """

    tensors: Mapping[str, Tensor]
    """What this rank updates, by the parameter's name."""
    parts: Mapping[str, Part]
    """Which part of the logical parameter each of ``tensors`` is."""
    keeps_whole: bool
    """Whether the model's own parameters have values between steps."""

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of ``tensors``; a parameter that took no part has none."""

    def drop_gradients(self) -> None:
        """Forget all gradients."""

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Run the backward pass of one micro-batch; what the last one of a step has made may be sent meanwhile."""

    def reduce(self) -> None:
        """Sum the gradients over all ranks that computed them from different tokens."""

    def publish(self) -> None:
        """Give the values of ``tensors`` to all ranks that compute with them."""

    def rest(self) -> None:
        """Let go of what was gathered for computing."""


def square_sum(
    gradients: Mapping[str, Tensor], parts: Mapping[str, Part], owned: Mapping[str, tuple[bool, ...]]
) -> float:
    """Return the sum of squares of the gradients that this rank answers for, in float32 for each and float64 in all.

    Args:
        gradients: of this rank, summed over the ranks that computed them.
        parts: which part of the parameter each is.
        owned: of each part's slices, whether this rank answers for it, so that no value is counted twice.
    """
    counted = []
    for name, gradient in gradients.items():
        flags = owned[name]
        if all(flags):
            counted.append(gradient)
        elif any(flags):
            blocks = zip(parts[name].blocks(), flags, strict=True)
            counted += [gradient[here.index()].contiguous() for (here, _), mine in blocks if mine]
    return global_norm(counted) ** 2 if counted else 0.0
