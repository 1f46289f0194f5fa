"""Data going through a model block by block, so that one block at a time needs to be there.

Shape letters: B batch, S tokens, T real tokens of a batch, H hidden, I inputs of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import paddle

from ..trainer.inputs import to_inputs
from .ranks import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from paddle import Tensor, nn

    from ..causal_lm import BlockContext, CausalLM
    from ..data.sample import Batch
    from .observe import Observer


class Passed(Protocol):
    """What hidden states go through: a block, or the head."""

    def __call__(self, hidden_BSH: Tensor, context: BlockContext, cache: None) -> Tensor:
        """Return what becomes of them."""


class Walk:
    """Batches of this rank, and the hidden states that they have reached in front of the next block."""

    def __init__(self, model: CausalLM, batches: Sequence[Batch], ranks: Ranks = ALONE) -> None:
        """Embed this rank's share of the batches; the model has no more than its embeddings yet.

        Args:
            model: in evaluation mode.
            batches: of all ranks.
            ranks: among which they are dealt out.
        """
        self.ranks, self.num_batches = ranks, len(batches)
        self.batches = batches = ranks.dealt(batches)
        self.hidden: list[Tensor] = []
        self._contexts = []
        self._real: list[tuple[Tensor, np.ndarray]] = []
        with paddle.no_grad():
            for batch in batches:
                inputs = to_inputs(batch, model.config)
                self._contexts.append(model.context(inputs.positions, inputs.mask))
                self.hidden.append(model.embed(inputs.ids_BS, inputs.positions))
                places_T = np.flatnonzero(batch.segments_BS)
                self._real.append((paddle.to_tensor(places_T), places_T // batch.segments_BS.shape[1]))

    def fork(self) -> Walk:
        """Return another walk that stands in the same place."""
        other = Walk.__new__(Walk)
        other.ranks, other.num_batches = self.ranks, self.num_batches
        other.batches, other._contexts, other._real = self.batches, self._contexts, self._real
        other.hidden = list(self.hidden)
        return other

    def through(self, block: Passed) -> None:
        """Go through a block."""
        with paddle.no_grad():
            for index, context in enumerate(self._contexts):
                self.hidden[index] = block(self.hidden[index], context, None)

    def observe(self, block: Passed, layers: Mapping[nn.Layer, Observer], *, num_batches: int | None = None) -> None:
        """Show observers the inputs of layers of a block, batch after batch, and stay in front of the block.

        In the end they know what those of all ranks have seen.

        Args:
            block: may be anything that calls each of the layers once.
            layers: observers by the layer whose input they see.
            num_batches: how many of the batches, in all; ``None``: all.

        Raises:
            DistributedError: a rank has gone, is late, or came to something else.
        """
        wanted = range(self.num_batches if num_batches is None else min(num_batches, self.num_batches))
        for index in range(len(self.ranks.dealt(wanted))):
            watch = _Watch(len(layers), *self._real[index])
            handles = [
                layer.register_forward_pre_hook(watch.hook(observer))  # type: ignore[arg-type]  # Paddle passes a tuple
                for layer, observer in layers.items()
            ]
            try:
                with paddle.no_grad():
                    block(self.hidden[index], self._contexts[index], None)
            except _SeenAllError:
                pass
            finally:
                for handle in handles:
                    handle.remove()
        for observer in layers.values():
            observer.join(self.ranks)


class _SeenAllError(Exception):
    """Ends a forward pass of which the rest is not needed."""


class _Watch:
    """Hands the inputs of layers to their observers during one forward pass."""

    def __init__(self, num_layers: int, real_T: Tensor, rows_T: np.ndarray) -> None:
        self._left, self._real_T, self._rows_T = num_layers, real_T, rows_T

    def hook(self, observer: Observer) -> Callable[[nn.Layer, tuple[Any, ...]], None]:
        def see(layer: nn.Layer, arguments: tuple[Any, ...]) -> None:
            x_TI = arguments[0]
            x_TI = paddle.gather(x_TI.reshape([-1, x_TI.shape[-1]]), self._real_T)
            observer.add(x_TI.astype("float32"), self._rows_T)
            self._left -= 1
            if self._left == 0:
                raise _SeenAllError

        return see
