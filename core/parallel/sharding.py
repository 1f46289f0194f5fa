"""Sharding: ranks with different samples share optimizer state (stage 1), gradients too (2), parameters too (3).

Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .data_parallel import Replicated, parts_of, trainable
from .sharding_unit import Unit
from .slices import Part

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .holding import Holding
    from .mesh import Mesh


def hold(model: CausalLM, mesh: Mesh, parts: Mapping[str, Part] | None = None) -> Holding:
    """Make a rank hold a model's trained parameters as the plan of its mesh says.

    Args:
        model: of this rank, with values. Wrap its layers (recomputation) before, not afterwards.
        mesh: of this rank.
        parts: which part of the logical parameter each of the model's parameters is, where it is not all of it.
    """
    stage = mesh.plan.sharding_stage
    return Sharded(model, mesh, stage, parts) if stage else Replicated(model, mesh, parts)


class Sharded:
    """A share of every parameter (``Holding``).

    Stage 1 reduces gradients after the last micro-batch; stages 2 and 3 reduce those of a block as soon as the
    backward pass has made them all, so that no rank holds all gradients. In stage 3 a block has its parameters while
    its forward and its backward pass run; those that are in no block (embedding, last norm, head) have them from the
    first to the last operation of both.
    """

    def __init__(self, model: CausalLM, mesh: Mesh, stage: int, parts: Mapping[str, Part] | None = None) -> None:
        """Cut a model's trainable parameters, and in stage 3 free them.

        Args:
            model: of this rank, with values; it gets hooks.
            mesh: of this rank.
            stage: 1, 2 or 3.
            parts: which part of the logical parameter each of the model's parameters is, where it is not all of it.
        """
        self.keeps_whole = stage < 3
        self._stage = stage
        named = trainable(model)
        whole = parts_of(named, parts)
        blocks = [_of_layer(named, block) for block in model.blocks]
        in_blocks = {name for block in blocks for name in block}
        assert len(in_blocks) == sum(map(len, blocks)), "blocks that share parameters cannot be gathered one by one"
        rest = {name: tensor for name, tensor in named.items() if name not in in_blocks}
        self._rest = Unit(rest, mesh, frees=stage == 3) if rest else None
        units = [Unit(block, mesh, frees=stage == 3) if block else None for block in blocks]
        self._units = [unit for unit in (self._rest, *units) if unit is not None]
        shares = {name: share for unit in self._units for name, share in unit.shares.items()}
        rows = {name: rows[unit.group.index] for unit in self._units for name, rows in unit.rows.items()}
        self.tensors: Mapping[str, Tensor] = {name: shares[name] for name in named}
        self.parts: Mapping[str, Part] = {name: whole[name].rows(*rows[name]) for name in named}
        self._hooks = _Hooks()
        self._readiness = [_Readiness(unit, self._hooks) for unit in self._units] if stage >= 2 else []
        if stage == 3:
            self._follow(model, units)

    def gradients(self) -> dict[str, Tensor]:
        """Return the reduced gradients of this rank's shares."""
        return {name: gradient for unit in self._units for name, gradient in unit.gradients().items()}

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for unit in self._units:
            unit.drop_gradients()

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of one micro-batch, and reduce what no hook has reduced.

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
        for unit in self._units:
            unit.free()

    def _follow(self, model: CausalLM, units: Sequence[Unit | None]) -> None:
        """Gather and free parameters as the forward and the backward pass go through the model."""
        if self._rest is not None:
            model.register_forward_pre_hook(_before(self._rest))
        for block, unit in zip(model.blocks, units, strict=True):
            if unit is not None:
                block.register_forward_pre_hook(_before(unit))
                block.register_forward_post_hook(self._after(unit))

    def _after(self, unit: Unit) -> Any:
        """Return a hook that frees a block's parameters, until its backward pass is about to begin."""

        def free(layer: Any, inputs: Any, output: Tensor) -> None:
            unit.free()
            if not output.stop_gradient:
                output.register_hook(self._hooks.guarded(partial(self._turn_to, unit)))

        return free

    def _turn_to(self, unit: Unit) -> None:
        """Free the block after this one, whose backward pass is over, and gather this one's parameters."""
        for other in self._units:
            if other is not unit and other is not self._rest:
                other.free()
        unit.gather()


class _Hooks:
    """What is called from within Paddle's backward pass, which loses exceptions."""

    def __init__(self) -> None:
        self._failure: Exception | None = None

    def guarded(self, act: Callable[[], None]) -> Callable[..., None]:
        """Return a hook that does something unless an earlier one has failed."""

        def hook(*_: Any) -> None:
            if self._failure is None:
                try:
                    act()
                except Exception as error:
                    self._failure = error

        return hook

    def raise_failure(self) -> None:
        """Raise what the first hook that failed raised."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


class _Readiness:
    """Reduces a unit's gradients when the backward pass has made the last of them."""

    def __init__(self, unit: Unit, hooks: _Hooks) -> None:
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


def _before(unit: Unit) -> Any:
    """Return a hook that gathers a unit before a layer's forward pass."""

    def gather(layer: Any, inputs: Any) -> None:
        unit.gather()

    return gather


def _of_layer(named: Mapping[str, Tensor], layer: Any) -> dict[str, Tensor]:
    """Return those of the named parameters that belong to a layer."""
    own = {id(parameter) for parameter in layer.parameters()}
    return {name: tensor for name, tensor in named.items() if id(tensor) in own}
