"""A stage working off its schedule: what it receives, computes, and sends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from paddle import Tensor

    from ..exchange import Edge
    from ..mesh import Mesh
    from .actions import Action

Key = tuple[int, int]
"""Section and micro-batch."""


class Flow:
    """Hidden states and gradients between two actions of a stage; for one run of its schedule."""

    def __init__(self, mesh: Mesh, forward: Callable[[int, int, Tensor | None], Tensor]) -> None:
        """Begin with nothing.

        Args:
            mesh: of this rank; activations come from its previous stage and go to its next.
            forward: computes a section of a micro-batch from the hidden states that enter it (``None``: it is the
                first one) and returns the hidden states that leave it, or the loss.
        """
        self._mesh = mesh
        self._forward_section = forward
        self._entering: dict[Key, Tensor] = {}
        self._leaving: dict[Key, Tensor] = {}
        self._gradients: dict[Key, Tensor] = {}
        self._open: dict[Key, tuple[Tensor | None, Tensor]] = {}

    def run(self, actions: Iterable[Action]) -> None:
        """Do all actions, in order.

        Raises:
            DistributedError: a neighbouring stage has gone or is late.
        """
        meaning: dict[str, Callable[[Key], None]] = {
            "receive_activation": self._receive_activation,
            "forward": self._forward,
            "send_activation": self._send_activation,
            "receive_gradient": self._receive_gradient,
            "backward": self._backward,
            "send_gradient": self._send_gradient,
        }
        for action in actions:
            meaning[action.kind]((action.section, action.micro))

    def _receive_activation(self, key: Key) -> None:
        (self._entering[key],) = _edge(self._mesh.previous_stage).receive()

    def _forward(self, key: Key) -> None:
        entering = self._entering.pop(key, None)
        if not paddle.is_grad_enabled():
            self._leaving[key] = self._forward_section(*key, entering)
            return
        if entering is not None:
            entering.stop_gradient = False
        leaving = self._forward_section(*key, entering)
        self._open[key] = (entering, leaving)
        self._leaving[key] = leaving.detach()

    def _send_activation(self, key: Key) -> None:
        _edge(self._mesh.next_stage).send(self._leaving.pop(key))

    def _receive_gradient(self, key: Key) -> None:
        (self._gradients[key],) = _edge(self._mesh.next_stage).receive()

    def _backward(self, key: Key) -> None:
        """Go back from the loss, or from the hidden states that left; the first section may have nothing to learn."""
        entering, leaving = self._open.pop(key)
        gradient = self._gradients.pop(key, None)
        if not leaving.stop_gradient:
            paddle.autograd.backward([leaving], None if gradient is None else [gradient])
        if entering is not None:
            assert entering.grad is not None, "what leaves a section depends on what enters it"
            self._gradients[key] = entering.grad

    def _send_gradient(self, key: Key) -> None:
        _edge(self._mesh.previous_stage).send(self._gradients.pop(key))


def _edge(edge: Edge | None) -> Edge:
    assert edge is not None, (
        "the mesh connects neighbouring stages, and the last to the first if sections are interleaved"
    )
    return edge
