"""Prefix tuning: trained keys and values that every token of a frozen model sees before its own.

Shape letters: B batch, P prefix tokens, S tokens, T keys, L layers, K key/value heads, D head size.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import paddle
from paddle import nn

from ..convert.load import fill
from ..ops.mask import AttentionMask
from ..ops.ragged import RaggedMask
from ..parallel.differentiable import copy_then_reduce
from ..parallel.slices import Part
from ..parallel.tensor.model import SplitCausalLM, split_of
from ..parallel.tensor.parts import even_span, kv_copies

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import Cache, CausalLM, LayerCache
    from ..parallel.tensor.model import Split
    from ..registry.facts import ModelConfig
    from .prefix_settings import PrefixSettings

Mask = TypeVar("Mask", AttentionMask, RaggedMask)


class Prefix(nn.Layer):
    """Keys and values of ``num_tokens`` virtual tokens in every layer.

    They stand in the attention of a model as if tokens had been read before; what they begin with is random. With a
    projection they are made by two matrices from an embedding of the virtual tokens, which trains more smoothly.

    Source: Li and Liang 2021, arXiv:2101.00190, section 4.
    """

    def __init__(self, config: ModelConfig, settings: PrefixSettings) -> None:
        """Make a prefix of zeros for a model of this shape."""
        super().__init__()
        self.config, self.settings = config, settings
        self.split: Split | None = None
        """How the model is split over ranks, each of which holds the whole prefix and sees its own heads of it."""
        zeros = nn.initializer.Constant(0.0)
        shape_LPKD = [config.num_layers, settings.num_tokens, config.num_kv_heads, config.head_dim]
        if settings.projection_size is None:
            self.keys, self.values = (self.create_parameter(shape_LPKD, default_initializer=zeros) for _ in range(2))
            return
        size, hidden = config.num_kv_heads * config.head_dim, settings.projection_size
        self.embedding = self.create_parameter([settings.num_tokens, size], default_initializer=zeros)
        self.hidden_proj = nn.Linear(size, hidden)
        self.key_proj, self.value_proj = (nn.Linear(hidden, config.num_layers * size) for _ in range(2))

    @property
    def num_positions(self) -> int:
        """Positions of the model that the prefix takes."""
        return self.settings.num_positions(self.config)

    def begin(self, seed: int) -> None:
        """Draw first values, which depend on the seed and not on the layout of the run."""
        for name, parameter in self.named_parameters():
            generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
            std = self.config.init_std if name in ("keys", "values") else 1.0
            if name.endswith(".weight"):
                std = 1 / math.sqrt(parameter.shape[0])
            if not name.endswith(".bias"):
                fill(parameter, generator.normal(0.0, std, parameter.shape).astype(np.float32))

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        """Return the keys and the values of all layers, [L, P, K, D] each."""
        if self.settings.projection_size is None:
            return self.keys, self.values
        hidden = paddle.tanh(self.hidden_proj(self.embedding))
        return self._by_layer(self.key_proj(hidden)), self._by_layer(self.value_proj(hidden))

    def own_keys_and_values(self) -> tuple[Tensor, Tensor]:
        """Return the keys and the values of all layers, of the heads that this rank has."""
        keys, values = self.keys_and_values()
        return self._own_heads(keys), self._own_heads(values)

    def precede(self, positions: Tensor, mask: Mask, cache: Cache | None) -> tuple[Tensor, Mask, Cache | None]:
        """Return what a forward pass gets so that its tokens come after the prefix.

        Args:
            positions: of the tokens, as without a prefix.
            mask: of the keys without a prefix.
            cache: of the tokens before, ``None`` in training. Where it is empty, the prefix becomes its first tokens.
        """
        positions, mask = self.make_room(positions, mask)
        if cache is None or cache.length == 0:
            cache = self.cache(cache)
        return positions, mask, cache

    def make_room(self, positions: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
        """Return the positions and the mask of tokens that come after the prefix."""
        if self.num_positions:
            positions = positions + self.num_positions
        return positions, preceded(mask, self.settings.num_tokens)

    def cache(self, inner: Cache | None = None) -> Cache:
        """Return what the first forward pass extends; it hands all on to ``inner``."""
        return _PrefixCache(*self.own_keys_and_values(), inner)

    def _own_heads(self, x_LPKD: Tensor) -> Tensor:
        """Return the key/value heads that this rank has; the prefix learns from those of all ranks."""
        if self.split is None:
            return x_LPKD
        group, heads = self.split.group, self.config.num_kv_heads
        copies = kv_copies(self.config, group.size)
        first, last = even_span(heads, group.size // copies, group.index // copies)
        return copy_then_reduce(x_LPKD, group)[:, :, first:last]

    def _by_layer(self, flat: Tensor) -> Tensor:
        """Turn [P, L * K * D] into [L, P, K, D]."""
        config = self.config
        shape_PLKD = [self.settings.num_tokens, config.num_layers, config.num_kv_heads, config.head_dim]
        out: Tensor = flat.reshape(shape_PLKD).transpose([1, 0, 2, 3])
        return out


def apply_prefix(model: CausalLM, settings: PrefixSettings, *, seed: int = 0) -> CausalLM:
    """Freeze a model and set a random prefix before it; its parameters keep their names.

    Args:
        model: whole, or a tensor-parallel rank's part of one.
        settings: of the prefix.
        seed: of its first values.
    """
    for parameter in model.parameters():
        parameter.stop_gradient = True
    prefix = Prefix(model.config, settings)
    prefix.begin(seed)
    prefix.split = split = split_of(model)
    model.prefix = prefix
    if isinstance(model, SplitCausalLM) and split is not None:
        shapes = {f"prefix.{name}": tuple(parameter.shape) for name, parameter in prefix.named_parameters()}
        model.split = replace(split, peers=[
            {**peer, **{name: Part.whole(shape, is_owner=index == 0) for name, shape in shapes.items()}}
            for index, peer in enumerate(split.peers)
        ])  # fmt: skip
    return model


def preceded(mask: Mask, num_tokens: int) -> Mask:
    """Return the mask with ``num_tokens`` keys before its own (of each sequence), which every token sees."""
    if isinstance(mask, RaggedMask):
        return mask.preceded(num_tokens, preceded)
    segments_BT, prefix_BT = (
        None if side is None else paddle.concat([paddle.zeros([side.shape[0], num_tokens], side.dtype), side], axis=1)
        for side in (mask.segments_BT, mask.prefix_BT)
    )
    return replace(mask, segments_BT=segments_BT, prefix_BT=prefix_BT, num_shared=num_tokens)


@dataclass(frozen=True, slots=True)
class _PrefixCache:
    """What the first forward pass after a prefix extends (``Cache``)."""

    keys_LPKD: Tensor
    values_LPKD: Tensor
    inner: Cache | None

    @property
    def length(self) -> int:
        """The prefix is held before any token."""
        return int(self.keys_LPKD.shape[1])

    def layer(self, index: int) -> _PrefixLayerCache:
        """Return the cache of block ``index``."""
        inner = None if self.inner is None else self.inner.layer(index)
        return _PrefixLayerCache(self.keys_LPKD[index], self.values_LPKD[index], inner)


@dataclass(frozen=True, slots=True)
class _PrefixLayerCache:
    """Sets the prefix before the tokens of one layer (``LayerCache``)."""

    keys_PKD: Tensor
    values_PKD: Tensor
    inner: LayerCache | None

    def extend(self, k_BSKD: Tensor, v_BSKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of prefix and tokens, and hand them to the cache where there is one."""
        keys, values = (
            paddle.concat([prefix.unsqueeze(0).expand([new.shape[0], -1, -1, -1]).astype(new.dtype), new], axis=1)
            for prefix, new in ((self.keys_PKD, k_BSKD), (self.values_PKD, v_BSKD))
        )
        return (keys, values) if self.inner is None else self.inner.extend(keys, values)
