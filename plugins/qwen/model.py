"""The network of a qwen, on one device. Shape letters: B batch, S tokens, H hidden, N heads, K key/value heads,
D head size, R half the rotary dimensions, V vocabulary."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from llm_run.core.causal_lm import BlockContext, CausalLM
from llm_run.core.ops import apply_rotary, attention, rms_norm, rotary_tables, swiglu

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
        self.q_proj = _linear(config.hidden_size, width, std, bias)
        self.k_proj = _linear(config.hidden_size, kv_width, std, bias)
        self.v_proj = _linear(config.hidden_size, kv_width, std, bias)
        self.o_proj = _linear(width, config.hidden_size, _residual_std(config))
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
        out_BSND = attention(q_BSND, k_BSKD, v_BSKD, context.mask)
        out_BSH: Tensor = self.o_proj(out_BSND.flatten(2))
        return out_BSH


class FeedForward(nn.Layer):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.gate_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.up_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = _linear(config.ffn_size, config.hidden_size, _residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(swiglu(self.gate_proj(x_BSH), self.up_proj(x_BSH)))
        return out_BSH


class Block(nn.Layer):
    """Attention, then feed-forward, each on the normalised residual stream and added to it."""

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RmsNorm(config.hidden_size, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        x_BSH = x_BSH + self.attention(self.attention_norm(x_BSH), context, cache)
        x_BSH = x_BSH + self.feed_forward(self.ffn_norm(x_BSH))
        return x_BSH


class QwenForCausalLM(CausalLM):
    """Embedding, blocks, norm, head."""

    config: QwenConfig

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, weight_attr=_normal(config.init_std))
        self.blocks = nn.LayerList([Block(config) for _ in range(config.num_layers)])
        self.norm = RmsNorm(config.hidden_size, config.norm_eps)
        if not config.tie_embeddings:
            self.lm_head = _linear(config.hidden_size, config.vocab_size, config.init_std)

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        hidden_BSH: Tensor = self.embed_tokens(input_ids_BS)
        return hidden_BSH

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        spec, scale_BS = self.config.rotary, None
        if self.config.generation == 1 and self.training:
            # Generation 1 stretches nothing in training: its samples end at the length that it was made for.
            spec = dataclasses.replace(spec, scaling=None)
        elif self.config.logn_length:
            scale_BS = _logn_scale(positions, self.config.logn_length)
        return BlockContext(mask, rotary=rotary_tables(spec, positions), query_scale_BS=scale_BS)

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        hidden_BSH = self.norm(hidden_BSH)
        return hidden_BSH

    def head(self, hidden_BSH: Tensor) -> Tensor:
        logits_BSV: Tensor = (
            paddle.matmul(hidden_BSH, self.embed_tokens.weight, transpose_y=True)
            if self.config.tie_embeddings
            else self.lm_head(hidden_BSH)
        )
        return logits_BSV


class RmsNorm(nn.Layer):
    """A learned scale on the normalised last axis."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, eps=self.eps)


def _logn_scale(positions_BS: Tensor, length: int) -> Tensor:
    """Return log_length(t) for the t-th token beyond ``length``, so that attention does not flatten (Su 2021,
    kexue.fm/archives/8823), and 1 up to there."""
    tokens_BS = (positions_BS + 1).astype("float32")
    return paddle.clip(paddle.log(tokens_BS) / math.log(length), min=1.0)


def _linear(in_size: int, out_size: int, std: float, bias: bool = False) -> nn.Linear:
    return nn.Linear(in_size, out_size, weight_attr=_normal(std), bias_attr=None if bias else False)


def _normal(std: float) -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))


def _residual_std(config: QwenConfig) -> float:
    """Two matrices a block write to the residual stream: its variance stays that of one at any depth (GPT-2)."""
    return config.init_std / math.sqrt(2 * config.num_layers)
