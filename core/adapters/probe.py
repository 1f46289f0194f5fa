"""Logits of a few tokens, from a model of which one block at a time is in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..convert.dtypes import to_float32
from ..convert.load import build_empty, fill
from ..convert.logical import parameters
from ..ops import AttentionMask
from .files import put_adapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..causal_lm import CausalLM
    from ..convert.logical import LogicalTensors
    from ..registry.facts import ModelConfig
    from ..registry.family import Family
    from .files import Adapter

ROWS, TOKENS = 2, 32


def probe_logits(
    family: Family, config: ModelConfig, tensors: LogicalTensors, adapter: Adapter | None = None
) -> np.ndarray:
    """Return logits [rows, tokens, V] of random tokens, the same ones every time; float32.

    Args:
        family: builds the model.
        config: of the model.
        tensors: its parameters.
        adapter: given to each block when it is read.

    Raises:
        WeightError: a tensor is damaged, or the adapter does not fit.
    """
    length = min(TOKENS, config.max_positions)
    ids_BS = np.random.default_rng(0).integers(0, config.vocab_size, (ROWS, length)).astype(np.int64)
    segments_BS = np.ones_like(ids_BS, dtype=np.int32)
    prompts_BS = np.zeros_like(segments_BS, dtype=bool)
    positions = paddle.to_tensor(config.positions(ids_BS, segments_BS, prompts_BS))
    model = build_empty(family, config)
    model.eval()
    _read(model, tensors, adapter, lambda name: not name.startswith("blocks."))
    with paddle.no_grad():
        context = model.context(positions, AttentionMask())
        hidden_BSH = model.embed(paddle.to_tensor(ids_BS), positions)
        for index in range(config.num_layers):
            prefix = f"blocks.{index}."
            _read(model, tensors, adapter, lambda name, prefix=prefix: name.startswith(prefix))  # type: ignore[misc]
            hidden_BSH = model.blocks[index](hidden_BSH, context, None)
            model.blocks[index] = paddle.nn.Identity()
        logits: np.ndarray = model.head(model.finish(hidden_BSH)).numpy()
    return logits


def _read(model: CausalLM, tensors: LogicalTensors, adapter: Adapter | None, is_wanted: Callable[[str], bool]) -> None:
    """Give values to some of the parameters, and their layers what the adapter has for them."""
    for name, parameter in parameters(model).items():
        if is_wanted(name):
            fill(parameter, to_float32(tensors.read(name), tensors.dtype(name)))
    if adapter is not None:
        layers = {name: found for name, found in adapter.layers.items() if is_wanted(name)}
        put_adapter(model, replace(adapter, layers=layers))
        for layer in model.sublayers():
            layer.eval()
