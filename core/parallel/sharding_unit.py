"""Parameters that are gathered and reduced together: those of one block, or all that are in no block.

Each parameter is cut along its rows, about as many for each rank of the sharding group. What one rank has of all of
them lies in one flat tensor when it is sent, filled up so that all ranks send the same number of values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import paddle

from .collectives import all_gather, all_reduce_in_place, reduce_scatter
from .data_parallel import unflattened

if TYPE_CHECKING:
    from paddle import Tensor

    from .mesh import Mesh


class Unit:
    """One rank's share of some parameters."""

    def __init__(self, parameters: Mapping[str, Tensor], mesh: Mesh, *, frees: bool) -> None:
        """Cut the parameters.

        Args:
            parameters: with values, at least one dimension each.
            mesh: of this rank.
            frees: the parameters themselves have values only between ``gather`` and ``free``.
        """
        self.parameters = dict(parameters)
        self.mesh = mesh
        self.group = mesh.group("sharding")
        self.frees = frees
        self.rows = {name: _cut(tensor.shape[0], self.group.size) for name, tensor in self.parameters.items()}
        self.shares = {name: self._share(name) for name in self.parameters}
        self._shapes = {name: list(tensor.shape) for name, tensor in self.parameters.items()}
        self._length = max(sum(self._size(name, rank) for name in self.rows) for rank in range(self.group.size))
        self._gradient_L: Tensor | None = None
        self._reduced: set[str] = set()
        self.is_gathered = True
        self.free()

    def gather(self) -> None:
        """Give the parameters their values from all ranks' shares."""
        if self.frees and self.is_gathered:
            return
        with paddle.no_grad():
            pieces = [share.flatten() for share in self.shares.values()]
            all_WL = all_gather(_filled(pieces, self._length), self.group, dim=0)
            starts = [rank * self._length for rank in range(self.group.size)]
            for name, parameter in self.parameters.items():
                sizes = [self._size(name, rank) for rank in range(self.group.size)]
                parts = [all_WL._slice(at, at + size) for at, size in zip(starts, sizes, strict=True) if size]
                starts = [at + size for at, size in zip(starts, sizes, strict=True)]
                _put(parameter, paddle.concat(parts).reshape(self._shapes[name]), replace=self.frees)
        self.is_gathered = True

    def free(self) -> None:
        """Take the values from the parameters again, where they are not kept."""
        if self.frees and self.is_gathered:
            for parameter in self.parameters.values():
                parameter._clear_data()
            self.is_gathered = False

    def reduce(self) -> None:
        """Add the sum of all ranks' gradients to this rank's share, and drop those of the parameters themselves."""
        gradients = {
            name: parameter.grad.contiguous()
            for name, parameter in self.parameters.items()
            if parameter.grad is not None
        }
        if not gradients:
            return
        with paddle.no_grad():
            pieces = [self._packed(gradients, rank) for rank in range(self.group.size)]
            for parameter in self.parameters.values():
                parameter.grad = None
            gradients.clear()
            mine_L = reduce_scatter(paddle.concat(pieces), self.group, dim=0)
            del pieces
            for axis in ("dp", "sep"):
                all_reduce_in_place(mine_L, self.mesh.group(axis))
            self._gradient_L = mine_L if self._gradient_L is None else self._gradient_L.add_(mine_L)

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of this rank's shares, as far as they have been reduced."""
        if self._gradient_L is None:
            return {}
        shapes = [share.shape for share in self.shares.values()]
        found = dict(zip(self.shares, unflattened(self._gradient_L, shapes), strict=True))
        return {name: gradient for name, gradient in found.items() if name in self._reduced}

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        self._gradient_L = None
        self._reduced.clear()
        for parameter in self.parameters.values():
            parameter.grad = None

    def _share(self, name: str) -> Tensor:
        """Return this rank's rows: of a parameter that stays a view, of one that is freed a copy."""
        first, end = self.rows[name][self.group.index]
        parameter = self.parameters[name].detach()
        if first == end:
            return paddle.empty([0, *parameter.shape[1:]], dtype=parameter.dtype)
        share: Tensor = parameter._slice(first, end)
        return share.clone() if self.frees else share

    def _packed(self, gradients: Mapping[str, Tensor], rank: int) -> Tensor:
        """Return what ``rank`` is to get of this rank's gradients; zeros where a parameter has none."""
        pieces = []
        for name, (first, end) in ((name, rows[rank]) for name, rows in self.rows.items()):
            if name in gradients:
                self._reduced.add(name)
                if first < end:
                    pieces.append(gradients[name]._slice(first, end).flatten())
            else:
                pieces.append(paddle.zeros([self._size(name, rank)]))
        return _filled(pieces, self._length)

    def _size(self, name: str, rank: int) -> int:
        first, end = self.rows[name][rank]
        width: int = math.prod(self.parameters[name].shape[1:])
        return (end - first) * width


def _cut(rows: int, ranks: int) -> list[tuple[int, int]]:
    """Return first and last row of each rank's share, as even as it goes."""
    return [(rows * rank // ranks, rows * (rank + 1) // ranks) for rank in range(ranks)]


def _filled(pieces: list[Tensor], length: int) -> Tensor:
    """Join flat tensors and fill up with zeros."""
    missing = length - sum(int(piece.size) for piece in pieces)
    return paddle.concat([*pieces, *([paddle.zeros([missing])] if missing else [])])


def _put(parameter: Tensor, values: Tensor, *, replace: bool) -> None:
    """Give a parameter values: the memory of ``values``, or a copy in its own."""
    if replace:
        values._share_buffer_to(parameter)
    else:
        paddle.assign(values, output=parameter)
