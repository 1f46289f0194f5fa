"""Random numbers of activations that differ between tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

if TYPE_CHECKING:
    from paddle import Tensor

LARGEST_WORD = 2**31 - 1


class RankStream:
    """A random stream of this rank, beside the one that all ranks of a sample share.

    What all ranks compute alike (the residual stream) must drop the same entries on each; what each has its own part
    of (heads, or tokens in sequence parallelism) must not. The stream begins anew at every ``enter``, from a word that
    the shared stream gives: so it is the same when a block is recomputed or a run resumed, and nothing is stored.
    """

    def __init__(self, index: int) -> None:
        """Take the rank's place among its tensor-parallel peers, which tells its stream from theirs."""
        self._index = index
        self._shared: Any = None

    def enter(self, *, training: bool) -> None:
        """Draw from the rank's own stream from now on."""
        self._shared = None
        if not training:
            return
        word = int(paddle.randint(0, LARGEST_WORD, [1]).numpy()[0])
        self._shared = paddle.get_rng_state()
        paddle.seed(int(np.random.SeedSequence([word, self._index]).generate_state(1)[0]))

    def leave(self) -> None:
        """Draw from the shared stream again."""
        if self._shared is not None:
            paddle.set_rng_state(self._shared)
            self._shared = None

    def around(self, layer: paddle.nn.Layer) -> None:
        """Let all that ``layer`` draws in its forward pass come from the rank's own stream."""
        forward: Callable[..., Tensor] = layer.forward

        def run(*inputs: Any) -> Tensor:
            self.enter(training=layer.training)
            try:
                return forward(*inputs)
            finally:
                self.leave()

        # On the object, not its class: other models of this process are left alone.
        object.__setattr__(layer, "forward", run)
