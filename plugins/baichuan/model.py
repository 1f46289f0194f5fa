"""The network of a baichuan, on one device. Shape letters: B batch, S tokens, H hidden, N heads, D head size,
V vocabulary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from llm_run.core.causal_lm import BlockContext, CausalLM
from llm_run.core.ops import alibi_slopes, apply_rotary, attention, rms_norm, rotary_tables, swiglu

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
        self.q_proj, self.k_proj, self.v_proj = (_linear(size, size, std) for _ in range(3))
        self.o_proj = _linear(size, size, _residual_std(config))

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


class FeedForward(nn.Layer):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__()
        self.gate_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.up_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = _linear(config.ffn_size, config.hidden_size, _residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(swiglu(self.gate_proj(x_BSH), self.up_proj(x_BSH)))
        return out_BSH


class Block(nn.Layer):
    """Attention, then feed-forward, each on the normalised residual stream and added to it."""

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(config)
        self.attention = Attention(config)
        self.ffn_norm = RmsNorm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        x_BSH = x_BSH + self.attention(self.attention_norm(x_BSH), context, cache)
        x_BSH = x_BSH + self.feed_forward(self.ffn_norm(x_BSH))
        return x_BSH


class BaichuanForCausalLM(CausalLM):
    """Embedding, blocks, norm, head."""

    config: BaichuanConfig

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, weight_attr=_normal(config.init_std))
        self.blocks = nn.LayerList([Block(config) for _ in range(config.num_layers)])
        self.norm = RmsNorm(config)
        self.lm_head = _linear(config.hidden_size, config.vocab_size, config.init_std)

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        hidden_BSH: Tensor = self.embed_tokens(input_ids_BS)
        return hidden_BSH

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        rotary = self.config.rotary
        return BlockContext(mask, rotary=() if rotary is None else rotary_tables(rotary, positions))

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.norm(hidden_BSH)
        return out_BSH

    def head(self, hidden_BSH: Tensor) -> Tensor:
        logits_BSV: Tensor
        if not self.config.norm_head:
            logits_BSV = self.lm_head(hidden_BSH)
            return logits_BSV
        # In training as well: only then is what was learnt what is used later (arXiv:2309.10305, section 2.2). On CPU,
        # sums by a matrix product and scaled weights take 0.35 s where Paddle's own sums and scaled logits take 0.92 s.
        weight_HV = self.lm_head.weight
        squares_1V = paddle.matmul(paddle.ones([1, weight_HV.shape[0]], dtype=weight_HV.dtype), weight_HV.square())
        logits_BSV = paddle.matmul(hidden_BSH, weight_HV * squares_1V.clip(min=SMALLEST_SQUARE).rsqrt())
        return logits_BSV


SMALLEST_SQUARE = 1e-24
"""Of a row's length: an empty row gives logits of 0 and no NaN."""


class RmsNorm(nn.Layer):
    """A learned scale on the normalised hidden state."""

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = self.create_parameter([config.hidden_size], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, x_BSH: Tensor) -> Tensor:
        return rms_norm(x_BSH, self.weight, eps=self.eps)


def _linear(in_size: int, out_size: int, std: float) -> nn.Linear:
    return nn.Linear(in_size, out_size, weight_attr=_normal(std), bias_attr=False)


def _normal(std: float) -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))


def _residual_std(config: BaichuanConfig) -> float:
    """Two matrices a block write to the residual stream: its variance stays that of one at any depth (GPT-2)."""
    return config.init_std / math.sqrt(2 * config.num_layers)
