"""A model without its adapter, for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .lora import lora_layers

if TYPE_CHECKING:
    from ..causal_lm import CausalLM


@contextmanager
def adapters_off(model: CausalLM) -> Iterator[CausalLM]:
    """Lend a model that computes, within the block, as it did before training: without its adapter, or with the one
    that training goes on from (``LoraLinear.remember``)."""
    layers = lora_layers(model).values()
    prefix, model.prefix = model.prefix, None
    for layer in layers:
        layer.is_off = True
    try:
        yield model
    finally:
        model.prefix = prefix
        for layer in layers:
            layer.is_off = False
