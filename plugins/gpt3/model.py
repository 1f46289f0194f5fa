"""The network of a GPT-2 or GPT-3, on one device. Shape letters: B batch, S tokens, H hidden, N heads, D head size,
V vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle.nn.functional as F
from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import Decoder, LayerNorm, PreNormBlock, embedding, linear, residual_std
from llm_run.core.ops import attention, gelu

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import GptConfig


class Attention(nn.Layer):
    """Multi-head attention; positions are in the embeddings."""

    def __init__(self, config: GptConfig) -> None:
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
    """Two matrices with a GELU between them."""

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.activation = "gelu" if config.exact_gelu else "gelu_tanh"
        self.up_proj = linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = linear(config.ffn_size, config.hidden_size, residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(gelu(self.up_proj(x_BSH), tanh=self.activation == "gelu_tanh"))
        return out_BSH


def _block(config: GptConfig) -> PreNormBlock:
    return PreNormBlock(
        LayerNorm(config.hidden_size, config.norm_eps), Attention(config),
        LayerNorm(config.hidden_size, config.norm_eps), FeedForward(config), dropout=config.output_dropout,
    )  # fmt: skip


class GptForCausalLM(Decoder):
    """Embeddings of tokens and positions, blocks, norm; the head is the token embedding, or has a matrix of its own."""

    config: GptConfig

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens, self.embed_positions = (
            embedding(rows, config.hidden_size, config.init_std) for rows in (config.vocab_size, config.max_positions)
        )
        self.blocks = nn.LayerList([_block(config) for _ in range(config.num_layers)])
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)
        if not config.tie_embeddings:
            self.lm_head = linear(config.hidden_size, config.vocab_size, config.init_std, bias=False)

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        hidden_BSH: Tensor = self.embed_tokens(input_ids_BS) + self.embed_positions(positions)
        dropout = self.config.embedding_dropout
        return F.dropout(hidden_BSH, dropout, training=self.training) if dropout else hidden_BSH

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        return BlockContext(mask)
