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
from ..parallel.tensor.arrays import cut
from ..parallel.tensor.layers import ColumnLinear, RowLinear
from ..parallel.tensor.model import model_parts
from .lora_split import adapter_parts

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from .files import Adapter

_active: ContextVar[str | None] = ContextVar("active_adapter", default=None)


class SwitchedLinear(nn.Layer):
    """A linear layer with the matrices of several adapters, for inference; whole or a tensor-parallel rank's part.

    What a rank holds of the matrices is as in ``lora_split``, so that adapters add nothing to what ranks send.
    """

    def __init__(self, base: nn.Linear | ColumnLinear | RowLinear) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}
        self._enter = base.enter if isinstance(base, ColumnLinear) else None
        self._leave = base.leave if isinstance(base, RowLinear) else None

    def forward(self, x: Tensor) -> Tensor:
        if self._enter is not None:
            x = self._enter(x, training=self.training)
        out = F.linear(x, self.weight, None if self._leave is not None else self.bias)
        found = self.factors.get(_active.get() or "")
        if found is not None:
            out = out + F.linear(F.linear(x, found[0]), found[1])
        return out if self._leave is None else self._leave(out)


@contextmanager
def active_adapter(name: str | None) -> Iterator[None]:
    """Within the block, models compute with this adapter; ``None``: with none."""
    token = _active.set(name)
    try:
        yield
    finally:
        _active.reset(token)


def put_switched(model: CausalLM, adapters: Mapping[str, Adapter]) -> None:
    """Give a model several adapters; by default none of them is active.

    Args:
        model: whole, or a tensor-parallel rank's part; changed in place.
        adapters: by name, whole.

    Raises:
        RefusedError: one of them is DoRA, which changes the matrix itself.
    """
    parts = model_parts(model)
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
            held = adapter_parts(parts[f"{layer}.weight"], tensors.rank, is_first=True)
            a, b = cut(tensors.a, held["lora_A"]), cut(adapter.settings.scaling * tensors.b, held["lora_B"])
            switched.factors[name] = (paddle.to_tensor(a), paddle.to_tensor(b))


def switched_names(model: CausalLM) -> list[str]:
    """Return the names of the adapters that a model was given, in alphabetical order."""
    layers = (layer for _, layer in model.named_sublayers() if isinstance(layer, SwitchedLinear))
    return sorted({name for layer in layers for name in layer.factors})
