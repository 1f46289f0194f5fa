"""The network of a BLOOM, on one device. Shape letters: B batch, S tokens, H hidden, N heads, D head size,
V vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import Decoder, LayerNorm, PreNormBlock, embedding, linear, residual_std
from llm_run.core.ops import alibi_slopes, attention, gelu

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import BloomConfig


class Attention(nn.Layer):
    """Multi-head attention with linear biases (Press et al. 2021, arXiv:2108.12409): only distances count, so that
    neither padding nor a neighbour in a packed row moves a token."""

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.head_dim, self.dropout = config.head_dim, config.attention_dropout
        self.slopes_N = alibi_slopes(config.num_heads)
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
        out_BSND = attention(
            q_BSND, k_BSND, v_BSND, context.mask,
            slopes_N=self.slopes_N, dropout=self.dropout, training=self.training,
        )  # fmt: skip
        out_BSH: Tensor = self.o_proj(out_BSND.flatten(2))
        return out_BSH


class FeedForward(nn.Layer):
    """Two matrices with a GELU between them."""

    activation = "gelu_tanh"

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.up_proj = linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = linear(config.ffn_size, config.hidden_size, residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(gelu(self.up_proj(x_BSH), tanh=True))
        return out_BSH


def _block(config: BloomConfig) -> PreNormBlock:
    """Source: BigScience 2022, arXiv:2211.05100, section 3.2."""
    return PreNormBlock(
        LayerNorm(config.hidden_size, config.norm_eps), Attention(config),
        LayerNorm(config.hidden_size, config.norm_eps), FeedForward(config), dropout=config.output_dropout,
    )  # fmt: skip


class BloomForCausalLM(Decoder):
    """Embedding with its norm, blocks, norm; the head is the embedding, or has a matrix of its own."""

    config: BloomConfig

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = embedding(config.vocab_size, config.hidden_size, config.init_std)
        self.embed_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.blocks = nn.LayerList([_block(config) for _ in range(config.num_layers)])
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)
        if not config.tie_embeddings:
            self.lm_head = linear(config.hidden_size, config.vocab_size, config.init_std, bias=False)

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        hidden_BSH: Tensor = self.embed_norm(self.embed_tokens(input_ids_BS))
        return hidden_BSH

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        return BlockContext(mask)
