"""Parameters that come and go as the forward and the backward pass walk through a model (sharding stage 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from paddle import nn

from .tensor.layers import VocabularyEmbedding

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .sharding_unit import Unit
    from .units import Together

EMBEDDINGS = (nn.Embedding, VocabularyEmbedding)


class GuardedHooks:
    """What is called from within Paddle's backward pass, which loses exceptions."""

    def __init__(self) -> None:
        """Begin without a failure."""
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


class Following:
    """Gathers units before they are needed and frees them afterwards, by hooks on a model and its layers."""

    def __init__(self, model: CausalLM, units: Mapping[Together, Unit], hooks: GuardedHooks) -> None:
        """Hook into a model.

        Args:
            model: gets the hooks.
            units: all of its parameters; of a block, what is trained may be one and what is frozen another.
            hooks: under which the backward pass calls.
        """
        self._hooks = hooks
        self._blocks: dict[int, list[Unit]] = {}
        owners = {id(layer.weight): layer for layer in model.sublayers() if isinstance(layer, EMBEDDINGS)}
        head: list[Unit] = []
        for together, unit in units.items():
            if together.kind == "others":
                model.register_forward_pre_hook(_before(unit))
            elif together.kind == "block":
                self._blocks.setdefault(together.block, []).append(unit)
            else:
                embedding = owners.get(id(unit.parameters[together.names[0]]))
                if embedding is not None:
                    embedding.register_forward_pre_hook(_before(unit))
                    embedding.register_forward_post_hook(_free_after(unit))
                if embedding is None or model.config.tie_embeddings:
                    head.append(unit)
        for number in self._blocks:
            self._follow_block(model.blocks[number], number)
        if head:
            model.register_forward_post_hook(self._until_gradient(head))

    def _follow_block(self, block: nn.Layer, number: int) -> None:
        """Free a block's parameters after its forward pass, until its backward pass is about to begin."""
        units = self._blocks[number]
        own = {id(parameter) for unit in units for parameter in unit.parameters.values()}
        is_whole = all(id(parameter) in own for parameter in block.parameters())
        assert is_whole, "blocks that share parameters cannot be gathered one by one"

        def free(layer: Any, inputs: Any, output: Tensor) -> Any:
            for unit in units:
                unit.free()
            if not output.stop_gradient:
                output.register_hook(self._hooks.guarded(partial(self._turn_to, number)))

        for unit in units:
            block.register_forward_pre_hook(_before(unit))
        block.register_forward_post_hook(free)

    def _turn_to(self, number: int) -> None:
        """Free the block after this one, whose backward pass is over, and gather this one's parameters."""
        for other, units in self._blocks.items():
            for unit in () if other == number else units:
                unit.free()
        for unit in self._blocks[number]:
            unit.gather()

    def _until_gradient(self, head: Sequence[Unit]) -> Any:
        """Return a hook on the model: its head has its parameters until the hidden states have their gradient."""

        def free() -> None:
            for unit in head:
                unit.free()

        def gather(layer: Any, inputs: Any, hidden_BSH: Tensor) -> Any:
            for unit in head:
                unit.gather()
            if not hidden_BSH.stop_gradient:
                hidden_BSH.register_hook(self._hooks.guarded(free))

        return gather


def _before(unit: Unit) -> Any:
    """Return a hook that gathers a unit before a layer's forward pass."""

    def gather(layer: Any, inputs: Any) -> None:
        unit.gather()

    return gather


def _free_after(unit: Unit) -> Any:
    """Return a hook that frees a unit after a layer's forward pass; looking up needs no values in the backward pass."""

    def free(layer: Any, inputs: Any, output: Any) -> None:
        unit.free()

    return free
