"""Parameters that are gathered and reduced together: those of one block, one large matrix, or what is left.

Each parameter is cut along its rows, about as many for each rank of the sharding group. What one rank has of all of
them lies in one flat tensor when it is sent, filled up so that all ranks send the same number of values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import paddle

from .collectives import all_gather_flat, all_reduce_in_place, reduce_scatter_in_place
from .flat import unflattened
from .units import even_rows

if TYPE_CHECKING:
    from paddle import Tensor

    from .mesh import Mesh


class Unit:
    """One rank's share of some parameters."""

    def __init__(
        self, parameters: Mapping[str, Tensor], mesh: Mesh, *, frees: bool, shards: Mapping[str, Tensor] | None = None
    ) -> None:
        """Cut the parameters.

        Args:
            parameters: at least one dimension each; with values, or without where there are ``shards``.
            mesh: of this rank.
            frees: the parameters themselves have values only between ``gather`` and ``free``.
            shards: this rank's rows of them by name, where they are cut already.
        """
        self.parameters = dict(parameters)
        self.mesh = mesh
        self.group = mesh.group("sharding")
        self.frees = frees
        self.rows = {name: even_rows(tensor.shape[0], self.group.size) for name, tensor in self.parameters.items()}
        self.shares = {name: shards[name] if shards else self._share(name) for name in self.parameters}
        self._shapes = {name: list(tensor.shape) for name, tensor in self.parameters.items()}
        self._places, lengths = self._places_of_all()
        self._length = max(lengths)
        self._gradient_L: Tensor | None = None
        self._reduced: set[str] = set()
        self._is_one_block = len(self.parameters) == 1 and min(lengths) == self._length
        """The ranks' shares, one after the other, are the one parameter that there is."""
        self.is_gathered = not shards
        self.free()

    def gather(self) -> None:
        """Give the parameters their values from all ranks' shares."""
        if self.frees and self.is_gathered:
            return
        with paddle.no_grad():
            pieces = [share.flatten() for share in self.shares.values()]
            flat_WL = all_gather_flat(_filled(pieces, self._length), self.group)
            for name, parameter in self.parameters.items():
                if not self._is_one_block:
                    rows = [self._rows_in(flat_WL, name, rank) for rank in range(self.group.size)]
                    whole = paddle.concat([some for some in rows if some is not None])
                else:
                    whole = flat_WL
                _put(parameter, whole.reshape(self._shapes[name]), replace=self.frees)
        self.is_gathered = True

    def free(self) -> None:
        """Take the values from the parameters again, where they are not kept."""
        if self.frees and self.is_gathered:
            for parameter in self.parameters.values():
                parameter._clear_data()
            self.is_gathered = False

    def reduce(self) -> None:
        """Add the sum of all ranks' gradients to this rank's share, and drop those of the parameters themselves."""
        if all(parameter.grad is None for parameter in self.parameters.values()):
            return
        with paddle.no_grad():
            flat_WL = self._take_gradients()
            mine_L = reduce_scatter_in_place(flat_WL, self.group)
            del flat_WL
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

    def _rows_in(self, flat_WL: Tensor, name: str, rank: int) -> Tensor | None:
        """Return a view of a rank's rows of a parameter among what all ranks have; ``None`` where it has none."""
        at, size = rank * self._length + self._places[rank][name], self._size(name, rank)
        rows: Tensor | None = flat_WL._slice(at, at + size) if size else None
        return rows

    def _take_gradients(self) -> Tensor:
        """Return the parameters' gradients, each rank's rows together, and drop them."""
        if self._is_one_block:
            ((name, parameter),) = self.parameters.items()
            self._reduced.add(name)
            gradient = parameter.grad
            assert gradient is not None, "a unit without gradients is not reduced"
            joined: Tensor = gradient.contiguous().reshape([-1])
            parameter.grad = None
            return joined
        flat_WL = paddle.zeros([self.group.size * self._length])
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self._reduced.add(name)
                self._pack(name, parameter.grad.contiguous(), flat_WL)
                parameter.grad = None
        return flat_WL

    def _pack(self, name: str, gradient: Tensor, flat_WL: Tensor) -> None:
        """Put each rank's rows of a gradient where that rank's share of all gradients lies."""
        for rank, (first, end) in enumerate(self.rows[name]):
            if first < end:
                at = rank * self._length + self._places[rank][name]
                rows = gradient._slice(first, end).flatten()
                paddle.assign(rows, output=flat_WL._slice(at, at + rows.size))

    def _places_of_all(self) -> tuple[list[dict[str, int]], list[int]]:
        """Return for each rank where its rows of each parameter lie in its flat tensor, and how long that is."""
        places: list[dict[str, int]] = []
        lengths = []
        for rank in range(self.group.size):
            at, mine = 0, {}
            for name in self.rows:
                mine[name] = at
                at += self._size(name, rank)
            places.append(mine)
            lengths.append(at)
        return places, lengths

    def _size(self, name: str, rank: int) -> int:
        first, end = self.rows[name][rank]
        width: int = math.prod(self.parameters[name].shape[1:])
        return (end - first) * width


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
