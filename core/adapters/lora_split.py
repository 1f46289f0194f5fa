"""Adapted layers of which each tensor-parallel rank holds a part.

Of a matrix that is split by columns, A is whole on each rank and B is split as the matrix; of one that is split by
rows, A is split as the matrix and B is whole. What is whole gets its gradient from all ranks, since each computes with
a part of what it meets: so nothing of rank r is ever sent in the forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import paddle

from ..parallel.collectives import all_reduce
from ..parallel.slices import Part
from ..parallel.tensor.gradients import sum_gradient, sum_gradient_of_copies
from .lora_linear import LoraLinear

if TYPE_CHECKING:
    import numpy as np
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..parallel.groups import Group
    from ..parallel.tensor.layers import ColumnLinear, RowLinear
    from ..parallel.tensor.model import Split
    from .settings import LoraSettings


class ColumnLora(LoraLinear):
    """The adapter of a matrix that is split by columns."""

    def __init__(self, base: ColumnLinear, settings: LoraSettings, first_IR: np.ndarray) -> None:
        super().__init__(base, settings, first_IR)
        self._base = (base,)  # in a tuple, so that its parameters are not the model's a second time

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self._base[0].enter(x, training=self.training))

    def plain(self) -> ColumnLinear:
        return self._base[0]


class RowLora(LoraLinear):
    """The adapter of a matrix that is split by rows."""

    def __init__(self, base: RowLinear, settings: LoraSettings, first_IR: np.ndarray, group: Group) -> None:
        super().__init__(base, settings, first_IR)
        self._base, self._group = (base,), group  # in a tuple, so that its parameters are not the model's twice

    def forward(self, x: Tensor) -> Tensor:
        return self._base[0].leave(self.multiply(x))

    def plain(self) -> RowLinear:
        return self._base[0]

    def sum_of_rows(self, matrix_IO: Tensor) -> Tensor:
        with paddle.no_grad():
            return all_reduce(super().sum_of_rows(matrix_IO), self._group)


def join_ranks(model: CausalLM, split: Split, layers: Mapping[str, LoraLinear]) -> None:
    """Tell a split model what each rank holds of its adapters, and let what several hold alike learn from all."""
    peers = [dict(peer) for peer in split.peers]
    for name, layer in layers.items():
        held = [peer[f"{name}.weight"] for peer in peers]
        rank = int(layer.lora_A.shape[1])
        for index, peer in enumerate(peers):
            parts = adapter_parts(held[index], rank, is_first=index == 0)
            peer |= {f"{name}.{leaf}": parts[leaf] for leaf in parts if leaf in layer._parameters}
        if type(layer) is LoraLinear and not (split.sequence_parallel and name.startswith("blocks.")):
            continue  # each rank computes it from the same
        copies = sum(part.slices == held[0].slices for part in held)
        for leaf in ("lora_A", "lora_B", "lora_magnitude"):
            parameter = layer._parameters.get(leaf)
            if parameter is None:
                continue
            part = peers[0][f"{name}.{leaf}"]
            if part.local_shape == part.shape:
                sum_gradient(parameter, split.group)
            else:
                sum_gradient_of_copies(parameter, split.group, copies=copies)
    model.split = replace(split, peers=peers)


def adapter_parts(weight: Part, rank: int, *, is_first: bool) -> dict[str, Part]:
    """Return what a rank holds of A, B and the lengths of columns.

    Args:
        weight: what it holds of the matrix [in, out].
        rank: of the adapter.
        is_first: of the tensor-parallel ranks, which answers for what all of them hold.
    """
    in_size, out_size = weight.shape
    spans = [(block.start[weight.dim], block.stop[weight.dim]) for block in weight.slices]
    if weight.dim == 1:
        return {
            "lora_A": Part.whole((in_size, rank), is_owner=is_first),
            "lora_B": Part.along((rank, out_size), 1, spans, is_owner=weight.is_owner),
            "lora_magnitude": Part.along((out_size,), 0, spans, is_owner=weight.is_owner),
        }
    return {
        "lora_A": Part.along((in_size, rank), 0, spans, is_owner=weight.is_owner),
        "lora_B": Part.whole((rank, out_size), is_owner=is_first),
        "lora_magnitude": Part.whole((out_size,), is_owner=is_first),
    }
