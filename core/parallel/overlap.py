"""Sums of gradients that travel while the backward pass still makes others (data parallelism).

It pays where transfers have an engine of their own, as NCCL's do. Gloo's take the cores that compute: on two cores
with a thread for each of two ranks, ``all_reduce(sync_op=False)`` of 128 MiB returns after 0.47 s where the whole
transfer takes 0.44 s, and it takes 5.49 s together with matrix products of 4.58 s; in a thread of its own 5.06 s, the
sum of both (Paddle 3.3.1, medians of 9). So on gloo gradients are summed after the backward pass.

Source: Li et al. 2020, arXiv:2006.15704, section 3.2.3 (buckets in the order in which gradients become ready).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import paddle

from .collectives import begin_all_reduce
from .flat import flattened, unflattened
from .following import GuardedHooks
from .units import buckets

if TYPE_CHECKING:
    from paddle import Tensor

    from .groups import Group


class Overlap:
    """Sends a bucket of gradients as soon as the last micro-batch has made all of them."""

    def __init__(self, tensors: Mapping[str, Tensor], group: Group) -> None:
        """Hook into the parameters.

        Args:
            tensors: that are trained, in forward order, the same on all ranks.
            group: of the ranks that sum.
        """
        self._tensors, self._group = tensors, group
        self._hooks = GuardedHooks()
        backwards = {name: 4 * int(tensor.size) for name, tensor in reversed(list(tensors.items()))}
        self._buckets = list(buckets(backwards))
        self._waiting: list[set[str]] = []
        self._under_way: list[tuple[list[str], Tensor, Callable[[], object]]] = []
        for index, bucket in enumerate(self._buckets):
            for name in bucket:
                tensors[name]._register_backward_hook(self._hooks.guarded(partial(self._note, index, name)))

    def run(self, loss: Tensor) -> None:
        """Run the backward pass of the last micro-batch, and begin to send what it makes.

        Raises:
            DistributedError: a rank has gone, is late, or has other gradients.
        """
        self._waiting = [set(bucket) for bucket in self._buckets]
        try:
            loss.backward()
        finally:
            self._waiting = []
            self._hooks.raise_failure()

    def sums(self) -> dict[str, Tensor]:
        """Wait for what is under way, and return it; gradients that no hook has sent are still the parameters' own."""
        found: dict[str, Tensor] = {}
        for names, flat, end in self._under_way:
            end()
            found |= zip(names, unflattened(flat, [self._tensors[name].shape for name in names]), strict=True)
        self._under_way.clear()
        return found

    def _note(self, index: int, name: str) -> None:
        if not self._waiting:  # not the last micro-batch
            return
        self._waiting[index].discard(name)
        if not self._waiting[index]:
            self._send(self._buckets[index])

    def _send(self, names: list[str]) -> None:
        with paddle.no_grad():
            gradients = [self._tensors[name].grad for name in names]
            flat = flattened([gradient for gradient in gradients if gradient is not None])
        for name in names:
            self._tensors[name].grad = None
        self._under_way.append((names, flat, begin_all_reduce(flat, self._group)))
