"""Layers that many families' networks are made of, and the values that they begin with.

A family takes what fits and writes the rest itself. Shape letters: B batch, S tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
import paddle.nn.functional as F
from paddle import nn

from .causal_lm import BlockContext, CausalLM
from .ops import layer_norm, rms_norm, swiglu

if TYPE_CHECKING:
    from collections.abc import Callable

    from paddle import Tensor

    from .causal_lm import LayerCache
    from .registry.facts import ModelConfig


class Decoder(CausalLM):
    """Embedding, blocks, norm, head, as most families have them. A family overrides what it does otherwise.

    It sets ``embed_tokens``, ``blocks`` and ``norm``, and ``lm_head`` unless the embedding is the head as well.
    """

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        """Look the tokens up."""
        hidden_BSH: Tensor = self.embed_tokens(input_ids_BS)
        return hidden_BSH

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        """Apply the final norm."""
        out_BSH: Tensor = self.norm(hidden_BSH)
        return out_BSH

    def head(self, hidden_BSH: Tensor) -> Tensor:
        """Return logits [B, S, V]."""
        logits_BSV: Tensor = (
            paddle.matmul(hidden_BSH, self.embed_tokens.weight, transpose_y=True)
            if self.config.tie_embeddings
            else self.lm_head(hidden_BSH)
        )
        return logits_BSV


class PlainDecoder(Decoder):
    """A decoder that has nothing besides embedding, blocks, norm, and a head where the embedding is not it."""

    def __init__(self, config: ModelConfig, block: Callable[[], nn.Layer], norm: nn.Layer) -> None:
        """Build the parts in their order; ``block`` makes one block."""
        super().__init__()
        self.config = config
        self.embed_tokens = embedding(config.vocab_size, config.hidden_size, config.init_std)
        self.blocks = nn.LayerList([block() for _ in range(config.num_layers)])
        self.norm = norm
        if not config.tie_embeddings:
            self.lm_head = linear(config.hidden_size, config.vocab_size, config.init_std, bias=False)


class PreNormBlock(nn.Layer):
    """Attention, then feed-forward, each on the normalised residual stream and added to it.

    Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3.
    """

    def __init__(
        self, attention_norm: nn.Layer, attention: nn.Layer, ffn_norm: nn.Layer, feed_forward: nn.Layer, *,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        """Take the parts in the order of the computation; ``dropout`` is the share of what each adds that is left out
        in training."""
        super().__init__()
        self.dropout = dropout
        self.attention_norm = attention_norm
        self.attention = attention
        self.ffn_norm = ffn_norm
        self.feed_forward = feed_forward

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        x_BSH = x_BSH + self._drop(self.attention(self.attention_norm(x_BSH), context, cache))
        return x_BSH + self._drop(self.feed_forward(self.ffn_norm(x_BSH)))

    def _drop(self, x_BSH: Tensor) -> Tensor:
        return F.dropout(x_BSH, self.dropout, training=self.training) if self.dropout else x_BSH


class SwigluFeedForward(nn.Layer):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202).

    ``activation`` tells the C++ step of decoding what stands between the matrices (``ops.decoder_step.ACTIVATIONS``);
    a family's own feed-forward part states it likewise, or runs plain.
    """

    activation = "swiglu"

    def __init__(self, config: ModelConfig, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = linear(config.hidden_size, config.ffn_size, config.init_std, bias)
        self.up_proj = linear(config.hidden_size, config.ffn_size, config.init_std, bias)
        self.down_proj = linear(config.ffn_size, config.hidden_size, residual_std(config), bias)

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(swiglu(self.gate_proj(x_BSH), self.up_proj(x_BSH)))
        return out_BSH


class RmsNorm(nn.Layer):
    """A learned scale on the normalised last axis."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, eps=self.eps)


class LayerNorm(nn.Layer):
    """A learned scale and offset on the normalised last axis."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([size], is_bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, eps=self.eps)


def embedding(rows: int, size: int, std: float) -> nn.Embedding:
    """Return an embedding whose values begin normally distributed, with standard deviation ``std``."""
    return nn.Embedding(rows, size, weight_attr=_normal(std))


def linear(in_size: int, out_size: int, std: float, bias: bool = True) -> nn.Linear:
    """Return a matrix whose values begin normally distributed, with standard deviation ``std``; a bias begins at 0."""
    return nn.Linear(in_size, out_size, weight_attr=_normal(std), bias_attr=None if bias else False)


def residual_std(config: ModelConfig) -> float:
    """Return the standard deviation of the two matrices a block that write to the residual stream.

    Its variance then stays that of one matrix at any depth.

    Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3.
    """
    return config.init_std / math.sqrt(2 * config.num_layers)


def _normal(std: float) -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))
