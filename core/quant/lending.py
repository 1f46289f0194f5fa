"""Finished layers whose integers lie on several ranks, as the rank that writes the result reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import paddle

from .layer import QuantizedLinear, quantized_layers

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..ops import QuantizedWeight
    from .ranks import Ranks


class LentLayers(Mapping[str, QuantizedLinear]):
    """The quantized layers of a model by name, their integers fetched from the rank that keeps them."""

    def __init__(self, model: CausalLM, ranks: Ranks) -> None:
        """Look at the model; the other ranks ``lend``."""
        self._own, self._ranks = quantized_layers(model), ranks

    def __getitem__(self, name: str) -> QuantizedLinear:
        layer, source = self._own[name], _keeper(name, self._ranks)
        if source == self._ranks.index:
            return layer
        self._ranks.say(name)
        return layer.with_weight(_taken(self._ranks.fetch([], source), layer.quantized))

    def __contains__(self, name: object) -> bool:
        return name in self._own

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


@contextmanager
def lent_layers(model: CausalLM, ranks: Ranks) -> Iterator[LentLayers]:
    """Give the layers of all ranks to the one that writes, and let the others go when it has.

    Raises:
        DistributedError: a rank has gone or is late.
    """
    yield LentLayers(model, ranks)
    if not ranks.is_alone:
        ranks.say("")


def lend(model: CausalLM, ranks: Ranks) -> None:
    """Give rank 0 the integers that it asks for, until it has written them all.

    Args:
        model: with the blocks that this rank keeps.
        ranks: this one is not rank 0.

    Raises:
        DistributedError: a rank has gone or is late.
    """
    own = quantized_layers(model)
    while name := ranks.say("")[0]:
        source = _keeper(name, ranks)
        ranks.fetch(_given(own[name].quantized) if source == ranks.index else [], source)


def let_go(layer: QuantizedLinear) -> None:
    """Drop the integers of a layer that another rank keeps; what they look like stays known."""
    nothing = paddle.empty([layer.quantized.out_size, 0], dtype="float32")
    layer.quantized = replace(layer.quantized, codes=nothing, scales_OG=nothing, zeros_OG=None, order_I=None)


def _keeper(name: str, ranks: Ranks) -> int:
    """Return which rank keeps a layer; what lies outside of blocks is rank 0's."""
    return ranks.keeper(int(name.split(".")[1])) if name.startswith("blocks.") else 0


def _given(weight: QuantizedWeight) -> list[np.ndarray]:
    """Return the tensors of a weight; one that it lacks is an array of none."""
    found = (weight.codes, weight.scales_OG, weight.zeros_OG, weight.order_I)
    return [np.empty(0, dtype=np.uint8) if tensor is None else tensor.numpy() for tensor in found]


def _taken(arrays: list[np.ndarray], known: QuantizedWeight) -> QuantizedWeight:
    codes, scales_OG, zeros_OG, order_I = (paddle.to_tensor(array) if array.size else None for array in arrays)
    assert codes is not None and scales_OG is not None
    return replace(known, codes=codes, scales_OG=scales_OG, zeros_OG=zeros_OG, order_I=order_I)
