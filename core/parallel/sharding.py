"""Sharding: ranks with different samples share optimizer state (stage 1), gradients too (2), parameters too (3).

Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from .data_parallel import Replicated, parts_of, trainable
from .following import Following, GuardedHooks
from .sharding_unit import Unit
from .shards import shards_of
from .units import Together, divide

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .holding import Holding
    from .mesh import Mesh
    from .slices import Part


def hold(model: CausalLM, mesh: Mesh, parts: Mapping[str, Part] | None = None) -> Holding:
    """Make a rank hold a model's trained parameters as the plan of its mesh says.

    Args:
        model: of this rank, with values or shards of them. Wrap its layers (recomputation) before, not afterwards.
        mesh: of this rank.
        parts: which part of the logical parameter each of the model's parameters is, where it is not all of it.
    """
    stage = mesh.plan.sharding_stage
    return Sharded(model, mesh, stage, parts) if stage else Replicated(model, mesh, parts)


def hold_frozen(model: CausalLM, mesh: Mesh, parts: Mapping[str, Part] | None = None) -> Callable[[], None]:
    """Make a rank hold a model of which nothing is trained: in stage 3 its rows, and a block while that computes.

    Args:
        model: of this rank, with values or shards of them; it gets hooks.
        mesh: of this rank.
        parts: which part of the logical parameter each of the model's parameters is, where it is not all of it.

    Returns:
        What frees all that was gathered, to be called after a forward pass.
    """
    if mesh.plan.sharding_stage < 3:
        return lambda: None
    units = _units(model, dict(model.named_parameters()), mesh, parts, frees=True)
    Following(model, units, GuardedHooks())

    def rest() -> None:
        for unit in units.values():
            unit.free()

    return rest


class Sharded:
    """A share of every parameter (``Holding``).

    Stage 1 reduces gradients after the last micro-batch; stages 2 and 3 reduce those of a unit (``units.py``) as soon
    as the backward pass has made them all, so that no rank holds all gradients. In stage 3 a unit has its parameters
    while they are needed: those of a block in its forward and its backward pass, the embedding where tokens are looked
    up, the head from the end of the forward pass until its gradients are made, the small rest throughout. What is
    frozen, under an adapter, comes and goes with it, and has no gradients.
    """

    def __init__(self, model: CausalLM, mesh: Mesh, stage: int, parts: Mapping[str, Part] | None = None) -> None:
        """Cut a model's trainable parameters, and in stage 3 free all.

        Args:
            model: of this rank, with values or shards of them; it gets hooks.
            mesh: of this rank.
            stage: 1, 2 or 3.
            parts: which part of the logical parameter each of the model's parameters is, where it is not all of it.
        """
        self.keeps_whole = stage < 3
        self._stage = stage
        named = trainable(model)
        whole = parts_of(named, parts)
        units = _units(model, named, mesh, parts, frees=stage == 3)
        self._units = list(units.values())
        shares = {name: share for unit in self._units for name, share in unit.shares.items()}
        rows = {name: rows[unit.group.index] for unit in self._units for name, rows in unit.rows.items()}
        self.tensors: Mapping[str, Tensor] = {name: shares[name] for name in named}
        self.parts: Mapping[str, Part] = {name: whole[name].rows(*rows[name]) for name in named}
        self._hooks = GuardedHooks()
        self._readiness = [_Readiness(unit, self._hooks) for unit in self._units] if stage >= 2 else []
        self._gathered = self._units
        if stage == 3:
            others = {name: parameter for name, parameter in model.named_parameters() if name not in named}
            frozen = _units(model, others, mesh, parts, frees=True)
            self._gathered = [*self._units, *frozen.values()]
            Following(model, units | frozen, self._hooks)

    def gradients(self) -> dict[str, Tensor]:
        """Return the reduced gradients of this rank's shares."""
        return {name: gradient for unit in self._units for name, gradient in unit.gradients().items()}

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for unit in self._units:
            unit.drop_gradients()

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Run the backward pass of one micro-batch, and reduce what no hook has reduced, be it the last one or not.

        Raises:
            DistributedError: a rank has gone, is late, or has other gradients.
        """
        for readiness in self._readiness:
            readiness.begin()
        try:
            loss.backward()
        finally:
            # Paddle goes on after a hook has failed, and fails then for want of what the hook did not do.
            self._hooks.raise_failure()
        if self._stage >= 2:
            self.reduce()
            self.rest()

    def reduce(self) -> None:
        """Sum the gradients over all ranks that computed them from different tokens."""
        for unit in self._units:
            unit.reduce()

    def publish(self) -> None:
        """Give the new values to all ranks; in stage 3 they are gathered when they are needed."""
        if self.keeps_whole:
            for unit in self._units:
                unit.gather()

    def rest(self) -> None:
        """Free all parameters that were gathered."""
        for unit in self._gathered:
            unit.free()


def _units(
    model: CausalLM, named: Mapping[str, Tensor], mesh: Mesh, parts: Mapping[str, Part] | None, *, frees: bool
) -> dict[Together, Unit]:
    """Return the units of some of a model's parameters."""
    shards, units = shards_of(model), dict[Together, Unit]()
    shapes = {name: part.shape for name, part in parts_of(named, parts).items()}
    for together in divide(shapes, model.config.vocab_size):
        own = {name: named[name] for name in together.names}
        units[together] = Unit(own, mesh, frees=frees, shards={name: shards[name] for name in own if name in shards})
    return units


class _Readiness:
    """Reduces a unit's gradients when the backward pass has made the last of them."""

    def __init__(self, unit: Unit, hooks: GuardedHooks) -> None:
        self._unit = unit
        self.begin()
        for name, parameter in unit.parameters.items():
            parameter._register_backward_hook(hooks.guarded(partial(self._note, name)))

    def begin(self) -> None:
        """Wait for all gradients of a backward pass."""
        self._waiting = set(self._unit.parameters)

    def _note(self, name: str) -> None:
        self._waiting.discard(name)
        if not self._waiting:
            self._unit.reduce()
