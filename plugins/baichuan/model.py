"""The network of a baichuan, on one device. Shape letters: B batch, S tokens, H hidden, N heads, D head size,
V vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import PlainDecoder, PreNormBlock, RmsNorm, SwigluFeedForward, linear, residual_std
from llm_run.core.ops import alibi_slopes, apply_rotary, attention, rotary_tables

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import BaichuanConfig


class Attention(nn.Layer):
    """Multi-head attention: with rotary positions (7B), or with biases by distance (13B).

    Source: Press et al. 2021, arXiv:2108.12409, section 3 (ALiBi).
    """

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__()
        self.head_dim, size, std = config.head_dim, config.hidden_size, config.init_std
        self.slopes_N = alibi_slopes(config.num_heads) if config.rotary is None else None
        self.q_proj, self.k_proj, self.v_proj = (linear(size, size, std, bias=False) for _ in range(3))
        self.o_proj = linear(size, size, residual_std(config), bias=False)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None) -> Tensor:
        q_BSND, k_BSND, v_BSND = (
            projection(x_BSH).reshape([0, 0, -1, self.head_dim])
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if context.rotary:
            q_BSND = apply_rotary(q_BSND, context.rotary, style="half")
            k_BSND = apply_rotary(k_BSND, context.rotary, style="half")
        if cache is not None:
            k_BSND, v_BSND = cache.extend(k_BSND, v_BSND)
        out_BSND = attention(q_BSND, k_BSND, v_BSND, context.mask, slopes_N=self.slopes_N)
        out_BSH: Tensor = self.o_proj(out_BSND.flatten(2))
        return out_BSH


def _block(config: BaichuanConfig) -> PreNormBlock:
    return PreNormBlock(
        RmsNorm(config.hidden_size, config.norm_eps), Attention(config),
        RmsNorm(config.hidden_size, config.norm_eps), SwigluFeedForward(config),
    )  # fmt: skip


class BaichuanForCausalLM(PlainDecoder):
    """Embedding, blocks, norm, head."""

    config: BaichuanConfig

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__(config, lambda: _block(config), RmsNorm(config.hidden_size, config.norm_eps))

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        rotary = self.config.rotary
        return BlockContext(mask, rotary=() if rotary is None else rotary_tables(rotary, positions))

    def head(self, hidden_BSH: Tensor) -> Tensor:
        if not self.config.norm_head:
            return super().head(hidden_BSH)
        # In training as well: only then is what was learnt what is used later (arXiv:2309.10305, section 2.2). On CPU,
        # sums by a matrix product and scaled weights take 0.35 s where Paddle's own sums and scaled logits take 0.92 s.
        weight_HV = self.lm_head.weight
        squares_1V = paddle.matmul(paddle.ones([1, weight_HV.shape[0]], dtype=weight_HV.dtype), weight_HV.square())
        logits_BSV: Tensor = paddle.matmul(hidden_BSH, weight_HV * squares_1V.clip(min=SMALLEST_SQUARE).rsqrt())
        return logits_BSV


SMALLEST_SQUARE = 1e-24
"""Of a row's length: an empty row gives logits of 0 and no NaN."""
