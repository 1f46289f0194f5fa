"""Data parallelism: each rank has all parameters, and gradients are summed over ranks in flat buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import paddle

from .collectives import all_reduce_in_place
from .flat import flattened, unflattened
from .overlap import Overlap
from .plan import REPLICAS
from .slices import Part
from .units import buckets

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .groups import Group
    from .mesh import Mesh


class Replicated:
    """Every parameter, whole, on every rank (``Holding``)."""

    keeps_whole: bool = True

    def __init__(
        self, model: CausalLM, mesh: Mesh, parts: Mapping[str, Part] | None = None, *, overlaps: bool | None = None
    ) -> None:
        """Look at a model's trainable parameters.

        Args:
            model: of this rank.
            mesh: of this rank.
            parts: which part of the logical parameter each of the model's parameters is, where it is not all of it.
            overlaps: sums travel while the backward pass goes on. By default where they travel beside it
                (``overlap.py``): on NCCL, not on gloo.
        """
        self.tensors: Mapping[str, Tensor] = trainable(model)
        self.parts: Mapping[str, Part] = parts_of(self.tensors, parts)
        self._group = mesh.group(*REPLICAS)
        self._sums: dict[str, Tensor] = {}
        wanted = self._group.backend != "gloo" if overlaps is None else overlaps
        self._overlap = Overlap(self.tensors, self._group) if wanted and not self._group.is_alone else None

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by parameter; after ``reduce`` their sums, which may be views of one buffer."""
        if self._sums:
            return self._sums
        return {name: tensor.grad for name, tensor in self.tensors.items() if tensor.grad is not None}

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        self._sums = {}
        for tensor in self.tensors.values():
            tensor.grad = None  # clear_gradient would keep the memory

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Run the backward pass of one micro-batch; gradients are summed in the last one, or after it.

        Raises:
            DistributedError: a rank has gone, is late, or has other gradients.
        """
        if self._overlap is not None and is_last:
            self._overlap.run(loss)
        else:
            loss.backward()

    def reduce(self) -> None:
        """Sum the gradients over all ranks that computed them from different tokens."""
        if self._group.is_alone:
            return
        if self._overlap is not None:
            self._sums |= self._overlap.sums()
        gradients = {name: tensor.grad for name, tensor in self.tensors.items() if tensor.grad is not None}
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
        flat = flattened(list(gradients.values()))
        gradients.clear()
        all_reduce_in_place(flat, group)
        return dict(zip(shapes, unflattened(flat, list(shapes.values())), strict=True))
