"""The network of a qwen, on one device. Shape letters: B batch, S tokens, H hidden, N heads, K key/value heads,
D head size, R half the rotary dimensions, V vocabulary."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import PlainDecoder, PreNormBlock, RmsNorm, SwigluFeedForward, linear, residual_std
from llm_run.core.ops import apply_rotary, attention, rotary_tables

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import QwenConfig


class Attention(nn.Layer):
    """Grouped-query attention with rotary positions: with biases (1, 2), or with normalised heads (3)."""

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.head_dim, self.rotary_style = config.head_dim, config.rotary.style
        std, bias = config.init_std, config.has_bias("attention.q_proj")
        self.q_proj = linear(config.hidden_size, width, std, bias)
        self.k_proj = linear(config.hidden_size, kv_width, std, bias)
        self.v_proj = linear(config.hidden_size, kv_width, std, bias)
        self.o_proj = linear(width, config.hidden_size, residual_std(config), bias=False)
        self.qk_norm = config.qk_norm
        if self.qk_norm:
            self.q_norm = RmsNorm(config.head_dim, config.norm_eps)
            self.k_norm = RmsNorm(config.head_dim, config.norm_eps)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None) -> Tensor:
        q_BSND, k_BSKD, v_BSKD = (
            projection(x_BSH).reshape([0, 0, -1, self.head_dim])
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.qk_norm:
            q_BSND, k_BSKD = self.q_norm(q_BSND), self.k_norm(k_BSKD)
        q_BSND = apply_rotary(q_BSND, context.rotary, style=self.rotary_style)
        k_BSKD = apply_rotary(k_BSKD, context.rotary, style=self.rotary_style)
        if context.query_scale_BS is not None:
            q_BSND = q_BSND * context.query_scale_BS.unsqueeze([2, 3]).astype(q_BSND.dtype)
        if cache is not None:
            k_BSKD, v_BSKD = cache.extend(k_BSKD, v_BSKD)
        out_BSH: Tensor = self.o_proj(attention(q_BSND, k_BSKD, v_BSKD, context.mask).flatten(2))
        return out_BSH


def _block(config: QwenConfig) -> PreNormBlock:
    return PreNormBlock(
        RmsNorm(config.hidden_size, config.norm_eps), Attention(config),
        RmsNorm(config.hidden_size, config.norm_eps), SwigluFeedForward(config),
    )  # fmt: skip


class QwenForCausalLM(PlainDecoder):
    """Embedding, blocks, norm, head."""

    config: QwenConfig

    def __init__(self, config: QwenConfig) -> None:
        super().__init__(config, lambda: _block(config), RmsNorm(config.hidden_size, config.norm_eps))

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        spec, scale_BS = self.config.rotary, None
        if self.config.generation == 1 and self.training:
            # Generation 1 stretches nothing in training: its samples end at the length that it was made for.
            spec = dataclasses.replace(spec, scaling=None)
        elif self.config.logn_length:
            scale_BS = _logn_scale(positions, self.config.logn_length)
        return BlockContext(mask, rotary=rotary_tables(spec, positions), query_scale_BS=scale_BS)


def _logn_scale(positions_BS: Tensor, length: int) -> Tensor:
    """Return log_length(t) for the t-th token beyond ``length``, so that attention does not flatten (Su 2021,
    kexue.fm/archives/8823), and 1 up to there."""
    tokens_BS = (positions_BS + 1).astype("float32")
    return paddle.clip(paddle.log(tokens_BS) / math.log(length), min=1.0)
