"""Several adapters on one model, one of them at a time: which one is said before each forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import paddle
import paddle.nn.functional as F
from paddle import nn

from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .files import Adapter

_active: ContextVar[str | None] = ContextVar("active_adapter", default=None)


class SwitchedLinear(nn.Layer):
    """A linear layer with the matrices of several adapters, for inference."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        found = self.factors.get(_active.get() or "")
        if found is not None:
            out = out + F.linear(F.linear(x, found[0]), found[1])
        return out


@contextmanager
def active_adapter(name: str | None) -> Iterator[None]:
    """Within the block, models compute with this adapter; ``None``: with none."""
    token = _active.set(name)
    try:
        yield
    finally:
        _active.reset(token)


def put_switched(model: CausalLM, adapters: Mapping[str, Adapter]) -> None:
    """Give a plain model several adapters; by default none of them is active.

    Raises:
        RefusedError: one of them is DoRA, which changes the matrix itself.
    """
    for name, adapter in adapters.items():
        if adapter.settings.dora:
            reason = "uses DoRA, which cannot be switched"
            raise RefusedError(Problem("--lora_modules", name, reason, "Merge it with --task merge_lora."))
        for layer, tensors in adapter.layers.items():
            owner, _, last = layer.rpartition(".")
            place = model.get_sublayer(owner) if owner else model
            if not isinstance(getattr(place, last), SwitchedLinear):
                setattr(place, last, SwitchedLinear(getattr(place, last)))
            switched: SwitchedLinear = getattr(place, last)
            a, b = paddle.to_tensor(tensors.a), paddle.to_tensor(adapter.settings.scaling * tensors.b)
            switched.factors[name] = (a, b)
