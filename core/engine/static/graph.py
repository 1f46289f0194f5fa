"""The graph of one forward pass with a cache: drawn from a model, and written as Paddle's inference library reads it.

Shape letters: L layers, B rows, S new tokens, C cached tokens, P = C + S, K key/value heads, D head size, V vocabulary,
Q tokens of a tuned prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn

from ...ops.graph_attention import GraphMask
from ...quant.layer import quantized_layers
from ..runner import inference

if TYPE_CHECKING:
    from paddle import Tensor
    from paddle.static import InputSpec

    from ...causal_lm import CausalLM, LayerCache

_Prefix = tuple[list["Tensor"], list["Tensor"]]
"""Keys and values of a tuned prefix by layer, [1, Q, K, D] each."""
INPUTS = ("input_ids", "positions", "attention_mask", "prompt_mask", "keys", "values")
"""All that a graph may ask for, in the order in which it does."""
OUTPUTS = ("logits", "keys", "values")


class DecodingGraph(nn.Layer):
    """One forward pass over new tokens behind cached ones, with every number of tokens open.

    The same graph reads prompts (an empty cache, many tokens) and decodes (one token a row): its weights are on the
    disk and in memory once. A tuned prefix is part of it and of no cache.
    """

    def __init__(self, model: CausalLM, unused: frozenset[str] = frozenset()) -> None:
        """Take a model that is ready for inference.

        Args:
            model: may have a prefix and quantized layers.
            unused: inputs that it does not look at; found by drawing the graph once with all of them.
        """
        super().__init__()
        self.model = model
        config = model.config
        self.names = tuple(
            name for name in INPUTS if name not in unused and (name != "prompt_mask" or config.prefix_lm)
        )
        self.found_unused: list[str] = []
        self._prefix = None if model.prefix is None else _prefix_by_layer(model)
        # What is saved with the graph are parameters and buffers.
        held = [*_integers(model), *(tensor for side in self._prefix or () for tensor in side)]
        for number, tensor in enumerate(held):
            self.register_buffer(f"held_{number}", tensor)
        self._num_positions = 0 if model.prefix is None else model.prefix.num_positions

    def specs(self) -> list[InputSpec]:
        """Return dtype and shape of every input."""
        from paddle.static import InputSpec

        config = self.model.config
        cache: list[int | None] = [config.num_layers, None, None, config.num_kv_heads, config.head_dim]
        by_token: list[int | None] = [None, None]
        shapes = {"keys": cache, "values": cache}
        if self._has_two_positions():
            shapes["positions"] = [None, 2, None]
        return [
            InputSpec(shapes.get(name, by_token), "float32" if name in ("keys", "values") else "int64", name)
            for name in self.names
        ]

    def _has_two_positions(self) -> bool:
        ones = np.ones([1, 1], dtype=np.int64)
        return self.model.config.positions(ones, ones.astype(np.int32), ones.astype(bool)).ndim == 3

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of the last token [B, V], and keys and values of all P tokens, float32 [L, B, P, K, D]."""
        return self._compute(inputs)

    @paddle.jit.not_to_static  # runs as it stands: nothing in it branches on a number that the graph will hold
    def _compute(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        given = dict(zip(self.names, inputs, strict=True))
        ids_BS, model = given["input_ids"], self.model
        # A family that does without positions (ALiBi) is not handed real ones the second time.
        positions = given.get("positions", ids_BS)
        if self._num_positions:
            positions = positions + self._num_positions
        prompt_BS = given["prompt_mask"] > 0 if "prompt_mask" in given else None
        num_queries = paddle.shape(ids_BS)[1].astype("int64")
        num_shared = 0 if self._prefix is None else int(self._prefix[0][0].shape[1])
        mask = GraphMask(given["attention_mask"], num_queries, prompt_BS, num_shared)
        cache = _GraphCache(given["keys"], given["values"], self._prefix)
        context = model.context(positions, mask)  # type: ignore[arg-type]
        hidden_BSH = model.embed(ids_BS, positions)
        for index, block in enumerate(model.blocks):
            hidden_BSH = block(hidden_BSH, context, cache.layer(index))
        logits_BV = model.head(model.finish(hidden_BSH)[:, -1]).astype("float32")
        if not paddle.in_dynamic_mode():
            looked_at = given | {"positions": positions} if "positions" in given else given
            self.found_unused = [name for name, value in looked_at.items() if value.use_empty()]
        return logits_BV, paddle.stack(cache.keys), paddle.stack(cache.values)


class _GraphCache:
    """Cached keys and values, and those of all tokens so far (``Cache``)."""

    def __init__(self, keys_LBCKD: Tensor, values_LBCKD: Tensor, prefix: _Prefix | None) -> None:
        self.before = keys_LBCKD, values_LBCKD
        self.prefix = prefix
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def layer(self, index: int) -> LayerCache:
        """Return the cache of block ``index``."""
        return _GraphLayerCache(self, index)


class _GraphLayerCache:
    """The part of one layer (``LayerCache``)."""

    def __init__(self, cache: _GraphCache, index: int) -> None:
        self._cache, self._index = cache, index

    def extend(self, k_BSKD: Tensor, v_BSKD: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new tokens, and return what attention sees: the prefix, the cached and the new ones."""
        cache, seen = self._cache, []
        for place, (new, all_so_far) in enumerate(((k_BSKD, cache.keys), (v_BSKD, cache.values))):
            before_BCKD = cache.before[place][self._index]
            # The number of heads is open in what a projection returns; here it becomes known.
            whole = paddle.concat([before_BCKD, new.reshape([0, 0, *before_BCKD.shape[2:]])], axis=1)
            all_so_far.append(whole)
            seen.append(whole if cache.prefix is None else _behind(cache.prefix[place][self._index], whole))
        return seen[0], seen[1]


def _behind(prefix_1QKD: Tensor, whole_BPKD: Tensor) -> Tensor:
    """Return the prefix, and behind it the tokens of each row."""
    rows_BQKD = paddle.expand(prefix_1QKD, [paddle.shape(whole_BPKD)[0], -1, -1, -1])
    return paddle.concat([rows_BQKD, whole_BPKD], axis=1)


def _integers(model: CausalLM) -> Iterator[Tensor]:
    """Yield what quantized layers compute with, which is no parameter."""
    for layer in quantized_layers(model).values():
        weight, adjustment = layer.quantized, layer.adjustment
        tensors = (weight.codes, weight.scales_OG, weight.zeros_OG, weight.order_I)
        yield from (each for each in (*tensors, adjustment.shift_I, adjustment.factor_I) if each is not None)


def _prefix_by_layer(model: CausalLM) -> _Prefix:
    """Return keys and values of a model's prefix, cut before drawing: a tensor with values is not cut in a graph."""
    assert model.prefix is not None
    with paddle.no_grad():
        keys, values = (
            [x_1QKD.detach() for x_1QKD in side.split(len(side))] for side in model.prefix.keys_and_values()
        )
    return keys, values


def write_graph(model: CausalLM, path: Path) -> tuple[str, ...]:
    """Draw a model's graph, write ``<path>.json`` and ``<path>.pdiparams``, and return the names of its inputs.

    The first is the program as JSON, the second holds raw tensors; neither is a pickle.

    Args:
        model: ready for inference, with all that is to be part of the graph.
        path: without a suffix.
    """
    with inference(model):
        graph, drawn = _draw(DecodingGraph(model))
        if graph.found_unused:
            graph, drawn = _draw(DecodingGraph(model, frozenset(graph.found_unused)))
        paddle.jit.save(drawn, str(path))
    return graph.names


def _draw(graph: DecodingGraph) -> tuple[DecodingGraph, Any]:
    # The whole graph at once: Python that cannot be drawn is an error, and is never left to run beside it.
    drawn: Any = paddle.jit.to_static(graph, input_spec=[graph.specs()], full_graph=True)
    assert drawn.forward.concrete_program is not None, "asking for it draws"
    return graph, drawn
