"""The network of a GLM, on one device. Shape letters: B batch, S tokens, T keys, H hidden, N heads, D head size,
V vocabulary."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import paddle
import paddle.nn.functional as F
from paddle import nn

from llm_run.core.causal_lm import BlockContext, CausalLM
from llm_run.core.ops import attention, gelu, layer_norm

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import GlmConfig


class Attention(nn.Layer):
    """Multi-head attention; positions are in the embeddings."""

    def __init__(self, config: GlmConfig) -> None:
        super().__init__()
        self.head_dim, self.dropout = config.head_dim, config.attention_dropout
        self.q_proj, self.k_proj, self.v_proj = (
            _linear(config.hidden_size, config.hidden_size, config.init_std) for _ in range(3)
        )
        self.o_proj = _linear(config.hidden_size, config.hidden_size, _residual_std(config))

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None) -> Tensor:
        q_BSND, k_BSND, v_BSND = (
            projection(x_BSH).reshape([*x_BSH.shape[:2], -1, self.head_dim])
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if cache is not None:
            k_BSND, v_BSND = cache.extend(k_BSND, v_BSND)
        out_BSND = attention(q_BSND, k_BSND, v_BSND, context.mask, dropout=self.dropout, training=self.training)
        out_BSH: Tensor = self.o_proj(out_BSND.flatten(2))
        return out_BSH


class FeedForward(nn.Layer):
    """Two matrices with a GELU between them."""

    def __init__(self, config: GlmConfig) -> None:
        super().__init__()
        self.up_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = _linear(config.ffn_size, config.hidden_size, _residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(gelu(self.up_proj(x_BSH), tanh=True))
        return out_BSH


class Block(nn.Layer):
    """Attention, then feed-forward, each on the normalised residual stream and added to it."""

    def __init__(self, config: GlmConfig) -> None:
        super().__init__()
        self.dropout = config.output_dropout
        self.attention_norm = LayerNorm(config)
        self.attention = Attention(config)
        self.ffn_norm = LayerNorm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        x_BSH = x_BSH + self._drop(self.attention(self.attention_norm(x_BSH), context, cache))
        return x_BSH + self._drop(self.feed_forward(self.ffn_norm(x_BSH)))

    def _drop(self, x_BSH: Tensor) -> Tensor:
        return F.dropout(x_BSH, self.dropout, training=self.training) if self.dropout else x_BSH


class GlmForCausalLM(CausalLM):
    """Embeddings of tokens, positions and block positions; blocks; norm; the head is the token embedding."""

    config: GlmConfig

    def __init__(self, config: GlmConfig) -> None:
        super().__init__()
        self.config = config
        # Position 0 to max_positions: a block position counts from 1.
        self.embed_tokens, self.embed_positions, self.embed_block_positions = (
            nn.Embedding(rows, config.hidden_size, weight_attr=_normal(config.init_std))
            for rows in (config.vocab_size, config.max_positions + 1, config.max_positions + 1)
        )
        self.blocks = nn.LayerList([Block(config) for _ in range(config.num_layers)])
        self.norm = LayerNorm(config)

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        hidden_BSH = self.embed_tokens(input_ids_BS) + self.embed_positions(positions[:, 0])
        hidden_BSH = hidden_BSH + self.embed_block_positions(positions[:, 1])
        dropout = self.config.embedding_dropout
        return F.dropout(hidden_BSH, dropout, training=self.training) if dropout else hidden_BSH

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        return BlockContext(_without_opening(mask, positions[:, 1]))

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.norm(hidden_BSH)
        return out_BSH

    def head(self, hidden_BSH: Tensor) -> Tensor:
        logits_BSV: Tensor = paddle.matmul(hidden_BSH, self.embed_tokens.weight, transpose_y=True)
        return logits_BSV


class LayerNorm(nn.Layer):
    """A learned scale and offset on the normalised hidden state."""

    def __init__(self, config: GlmConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = self.create_parameter([config.hidden_size], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([config.hidden_size], is_bias=True)

    def forward(self, x_BSH: Tensor) -> Tensor:
        return layer_norm(x_BSH, self.weight, self.bias, eps=self.eps)


def _without_opening(mask: AttentionMask, blocks_BS: Tensor) -> AttentionMask:
    """Keep only the context in the mask's prefix: a prompt ends in ``<|startofpiece|>``, which it does not see.

    Keys before the last S need no care: all that stands behind a prompt sees the whole of it anyway.
    """
    if mask.prefix_BT is None:
        return mask
    before = mask.prefix_BT.shape[1] - blocks_BS.shape[1]
    context_BS = mask.prefix_BT[:, before:] & (blocks_BS == 0)
    return replace(mask, prefix_BT=paddle.concat([mask.prefix_BT[:, :before], context_BS], axis=1))


def _linear(in_size: int, out_size: int, std: float) -> nn.Linear:
    return nn.Linear(in_size, out_size, weight_attr=_normal(std))


def _normal(std: float) -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))


def _residual_std(config: GlmConfig) -> float:
    """Two matrices a block write to the residual stream: its variance stays that of one at any depth (GPT-2)."""
    return config.init_std / math.sqrt(2 * config.num_layers)
