"""The network of a ChatGLM2 or ChatGLM3, on one device. Shape letters: B batch, S tokens, H hidden, N heads,
K key/value heads, D head size, V vocabulary."""

from __future__ import annotations

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
            _linear(config.hidden_size, size, config.init_std, config.qkv_bias) for size in (width, kv_width, kv_width)
        )
        self.o_proj = _linear(width, config.hidden_size, _residual_std(config))

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


class FeedForward(nn.Layer):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ChatGlm2Config) -> None:
        super().__init__()
        self.gate_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.up_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = _linear(config.ffn_size, config.hidden_size, _residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(swiglu(self.gate_proj(x_BSH), self.up_proj(x_BSH)))
        return out_BSH


class Block(nn.Layer):
    """Attention, then feed-forward, each on the normalised residual stream and added to it."""

    def __init__(self, config: ChatGlm2Config) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(config)
        self.attention = Attention(config)
        self.ffn_norm = RmsNorm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        x_BSH = x_BSH + self.attention(self.attention_norm(x_BSH), context, cache)
        x_BSH = x_BSH + self.feed_forward(self.ffn_norm(x_BSH))
        return x_BSH


class ChatGlm2ForCausalLM(CausalLM):
    """Embedding, blocks, norm, head."""

    config: ChatGlm2Config

    def __init__(self, config: ChatGlm2Config) -> None:
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
        return BlockContext(mask, rotary=rotary_tables(self.config.rotary, positions))

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.norm(hidden_BSH)
        return out_BSH

    def head(self, hidden_BSH: Tensor) -> Tensor:
        logits_BSV: Tensor = self.lm_head(hidden_BSH)
        return logits_BSV


class RmsNorm(nn.Layer):
    """A learned scale on the normalised hidden state."""

    def __init__(self, config: ChatGlm2Config) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = self.create_parameter([config.hidden_size], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, x_BSH: Tensor) -> Tensor:
        return rms_norm(x_BSH, self.weight, eps=self.eps)


def _linear(in_size: int, out_size: int, std: float, bias: bool = False) -> nn.Linear:
    return nn.Linear(in_size, out_size, weight_attr=_normal(std), bias_attr=None if bias else False)


def _normal(std: float) -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))


def _residual_std(config: ChatGlm2Config) -> float:
    """Two matrices a block write to the residual stream: its variance stays that of one at any depth (GPT-2)."""
    return config.init_std / math.sqrt(2 * config.num_layers)
