"""The network of an OPT, on one device. Shape letters: B batch, S tokens, H hidden, N heads, D head size, W width of
the embedding, V vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle.nn.functional as F
from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import Decoder, LayerNorm, embedding, linear, residual_std
from llm_run.core.ops import attention, relu

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import OptConfig


OFFSET = 2
"""Rows before that of position 0: the first model of this code kept its padding there."""
NORM_EPS = 1e-5


class Attention(nn.Layer):
    """Multi-head attention; positions are in the embeddings."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.head_dim, self.dropout = config.head_dim, config.attention_dropout
        self.q_proj, self.k_proj, self.v_proj = (
            linear(config.hidden_size, config.hidden_size, config.init_std) for _ in range(3)
        )
        self.o_proj = linear(config.hidden_size, config.hidden_size, residual_std(config))

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None) -> Tensor:
        q_BSND, k_BSND, v_BSND = (
            projection(x_BSH).reshape([0, 0, -1, self.head_dim])
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if cache is not None:
            k_BSND, v_BSND = cache.extend(k_BSND, v_BSND)
        out_BSND = attention(q_BSND, k_BSND, v_BSND, context.mask, dropout=self.dropout, training=self.training)
        out_BSH: Tensor = self.o_proj(out_BSND.flatten(2))
        return out_BSH


class FeedForward(nn.Layer):
    """Two matrices with a ReLU between them."""

    activation = "relu"

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.up_proj = linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = linear(config.ffn_size, config.hidden_size, residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(relu(self.up_proj(x_BSH)))
        return out_BSH


class Block(nn.Layer):
    """Attention, then feed-forward, each added to the residual stream; the norm stands before each, or behind the sum.

    Source: Zhang et al. 2022, arXiv:2205.01068, section 2.1.
    """

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.is_pre_norm, self.dropout = config.is_pre_norm, config.output_dropout
        self.attention_norm = LayerNorm(config.hidden_size, NORM_EPS)
        self.attention = Attention(config)
        self.ffn_norm = LayerNorm(config.hidden_size, NORM_EPS)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        if self.is_pre_norm:
            x_BSH = x_BSH + self._drop(self.attention(self.attention_norm(x_BSH), context, cache))
            return x_BSH + self._drop(self.feed_forward(self.ffn_norm(x_BSH)))
        x_BSH = self.attention_norm(x_BSH + self._drop(self.attention(x_BSH, context, cache)))
        out_BSH: Tensor = self.ffn_norm(x_BSH + self._drop(self.feed_forward(x_BSH)))
        return out_BSH

    def _drop(self, x_BSH: Tensor) -> Tensor:
        return F.dropout(x_BSH, self.dropout, training=self.training) if self.dropout else x_BSH


class OptForCausalLM(Decoder):
    """Embeddings of tokens and positions, blocks, norm; the head is the token embedding, or has a matrix of its own.

    The embeddings have no dropout (section 2.2 of the paper).
    """

    config: OptConfig

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden, std = config.word_size, config.hidden_size, config.init_std
        self.embed_tokens = embedding(config.vocab_size, width, std)
        self.embed_positions = embedding(config.max_positions + OFFSET, hidden, std)
        if config.has_projections:
            self.project_in = linear(width, hidden, std, bias=False)
            self.project_out = linear(hidden, width, std, bias=False)
        self.blocks = nn.LayerList([Block(config) for _ in range(config.num_layers)])
        if config.is_pre_norm:
            self.norm = LayerNorm(config.hidden_size, NORM_EPS)
        if not config.tie_embeddings:
            self.lm_head = linear(width, config.vocab_size, std, bias=False)

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        words_BSW = self.embed_tokens(input_ids_BS)
        hidden_BSH: Tensor = self.project_in(words_BSW) if self.config.has_projections else words_BSW
        hidden_BSH = hidden_BSH + self.embed_positions(positions + OFFSET)
        return hidden_BSH

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        return BlockContext(mask)

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        return super().finish(hidden_BSH) if self.config.is_pre_norm else hidden_BSH

    def head(self, hidden_BSH: Tensor) -> Tensor:
        return super().head(self.project_out(hidden_BSH) if self.config.has_projections else hidden_BSH)
