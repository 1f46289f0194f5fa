"""The network of a ChatGLM2 or ChatGLM3, on one device. Shape letters: B batch, S tokens, H hidden, N heads,
K key/value heads, D head size, V vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import PlainDecoder, PreNormBlock, RmsNorm, SwigluFeedForward, linear, residual_std
from llm_run.core.ops import apply_rotary, attention, rotary_tables

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import ChatGlm2Config


class Attention(nn.Layer):
    """Grouped-query attention; neighbours in the first half of a head turn together, the second half stays.

    That the published code scales by layer is left out: the scores are multiplied again by what divides the queries.
    """

    def __init__(self, config: ChatGlm2Config) -> None:
        super().__init__()
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.head_dim, self.rotary_style = config.head_dim, config.rotary.style
        self.q_proj, self.k_proj, self.v_proj = (
            linear(config.hidden_size, size, config.init_std, config.qkv_bias) for size in (width, kv_width, kv_width)
        )
        self.o_proj = linear(width, config.hidden_size, residual_std(config), bias=False)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None) -> Tensor:
        q_BSND, k_BSKD, v_BSKD = (
            projection(x_BSH).reshape([0, 0, -1, self.head_dim])
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BSND = apply_rotary(q_BSND, context.rotary, style=self.rotary_style)
        k_BSKD = apply_rotary(k_BSKD, context.rotary, style=self.rotary_style)
        if cache is not None:
            k_BSKD, v_BSKD = cache.extend(k_BSKD, v_BSKD)
        out_BSH: Tensor = self.o_proj(attention(q_BSND, k_BSKD, v_BSKD, context.mask).flatten(2))
        return out_BSH


def _block(config: ChatGlm2Config) -> PreNormBlock:
    return PreNormBlock(
        RmsNorm(config.hidden_size, config.norm_eps), Attention(config),
        RmsNorm(config.hidden_size, config.norm_eps), SwigluFeedForward(config),
    )  # fmt: skip


class ChatGlm2ForCausalLM(PlainDecoder):
    """Embedding, blocks, norm, head."""

    config: ChatGlm2Config

    def __init__(self, config: ChatGlm2Config) -> None:
        super().__init__(config, lambda: _block(config), RmsNorm(config.hidden_size, config.norm_eps))

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        return BlockContext(mask, rotary=rotary_tables(self.config.rotary, positions))
