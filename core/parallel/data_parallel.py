"""Data parallelism: each rank has all parameters, and gradients are summed over ranks in flat buckets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import paddle

from .collectives import all_reduce_in_place
from .plan import REPLICAS
from .slices import Part

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .groups import Group
    from .mesh import Mesh

BUCKET_BYTES = 32 << 20
"""Gradients that are sent at once: large enough that the start of a call costs nothing beside it."""


class Replicated:
    """Every parameter, whole, on every rank (``Holding``)."""

    keeps_whole: bool = True

    def __init__(self, model: CausalLM, mesh: Mesh, parts: Mapping[str, Part] | None = None) -> None:
        """Look at a model's trainable parameters.

        Args:
            model: of this rank.
            mesh: of this rank.
            parts: which part of the logical parameter each of the model's parameters is, where it is not all of it.
        """
        self.tensors: Mapping[str, Tensor] = trainable(model)
        self.parts: Mapping[str, Part] = parts_of(self.tensors, parts)
        self._group = mesh.group(*REPLICAS)
        self._sums: dict[str, Tensor] = {}

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by parameter; after ``reduce`` their sums, which may be views of one buffer."""
        if self._sums:
            return self._sums
        return {name: tensor.grad for name, tensor in self.tensors.items() if tensor.grad is not None}

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        self._sums = {}
        for tensor in self.tensors.values():
            tensor.clear_gradient(set_to_zero=False)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of one micro-batch; gradients are summed after the last one."""
        loss.backward()

    def reduce(self) -> None:
        """Sum the gradients over all ranks that computed them from different tokens."""
        if self._group.is_alone:
            return
        gradients = self.gradients()
        for bucket in buckets({name: 4 * int(gradient.size) for name, gradient in gradients.items()}):
            self._sums |= summed({name: gradients.pop(name) for name in bucket}, self._group)
            for name in bucket:
                self.tensors[name].grad = None

    def publish(self) -> None:
        """Do nothing: every rank has made the same update."""

    def rest(self) -> None:
        """Do nothing: nothing was gathered."""


def trainable(model: CausalLM) -> dict[str, Tensor]:
    """Return the parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if not parameter.stop_gradient}


def parts_of(tensors: Mapping[str, Tensor], parts: Mapping[str, Part] | None) -> dict[str, Part]:
    """Return the part of each tensor; all of it where ``parts`` does not say otherwise."""
    known = parts or {}
    return {name: known.get(name) or Part.whole(tuple(tensor.shape)) for name, tensor in tensors.items()}


def summed(gradients: dict[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Return the sums of all ranks' gradients, as views of one buffer; the gradients themselves are taken.

    Args:
        gradients: float32, of this rank; names and shapes are the same on all ranks.
        group: of the ranks.

    Raises:
        DistributedError: a rank has gone, is late, or has other gradients.
    """
    shapes = {name: gradient.shape for name, gradient in gradients.items()}
    with paddle.no_grad():
        flat = paddle.concat([gradient.flatten() for gradient in gradients.values()])
        gradients.clear()
        all_reduce_in_place(flat, group)
        return dict(zip(shapes, unflattened(flat, list(shapes.values())), strict=True))


def unflattened(flat: Tensor, shapes: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Yield tensors that lie one after the other in ``flat``, without copying them."""
    at = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        yield flat._slice(at, at + size).reshape(list(shape)) if size else paddle.zeros(list(shape))
        at += size


def buckets(sizes: Mapping[str, int], *, most: int = BUCKET_BYTES) -> Iterator[list[str]]:
    """Yield names in their order, together as long as their ``sizes`` add up to ``most`` at the most."""
    bucket: list[str] = []
    held = 0
    for name, size in sizes.items():
        if bucket and held + size > most:
            yield bucket
            bucket, held = [], 0
        bucket.append(name)
        held += size
    if bucket:
        yield bucket
