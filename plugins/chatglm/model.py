"""The network of a ChatGLM-6B, on one device. Shape letters: B batch, S tokens, T keys, H hidden, N heads, D head size,
V vocabulary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import LayerNorm, PlainDecoder
from llm_run.core.ops import apply_rotary, attention, gelu, rotary_tables
from llm_run.core.ops.block_positions import without_opening

if TYPE_CHECKING:
    from paddle import Tensor

    from llm_run.core.causal_lm import LayerCache
    from llm_run.core.ops.mask import AttentionMask

    from .config import ChatGlmConfig


class Attention(nn.Layer):
    """Attention whose heads turn half with the position and half with the block position.

    The published code divides the queries by (layer + 1) and multiplies the scores by it again, to keep float16 in
    range. The two cancel exactly, and the scores here are float32 already: neither is done.
    """

    def __init__(self, config: ChatGlmConfig) -> None:
        super().__init__()
        size, gain = config.hidden_size, _branch_gain(config)
        self.head_dim = config.head_dim
        self.q_proj = _linear(size, size, 1.0)
        self.k_proj = _linear(size, size, 1.0)
        self.v_proj = _linear(size, size, gain)
        self.o_proj = _linear(size, size, gain)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None) -> Tensor:
        q_BSND, k_BSND, v_BSND = (
            projection(x_BSH).reshape([0, 0, -1, self.head_dim])
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BSND, k_BSND = _rotate(q_BSND, context.rotary), _rotate(k_BSND, context.rotary)
        if cache is not None:
            k_BSND, v_BSND = cache.extend(k_BSND, v_BSND)
        out_BSH: Tensor = self.o_proj(attention(q_BSND, k_BSND, v_BSND, context.mask).flatten(2))
        return out_BSH


class FeedForward(nn.Layer):
    """Two matrices with a GELU between them."""

    def __init__(self, config: ChatGlmConfig) -> None:
        super().__init__()
        self.up_proj = _linear(config.hidden_size, config.ffn_size, _branch_gain(config))
        self.down_proj = _linear(config.ffn_size, config.hidden_size, _branch_gain(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(gelu(self.up_proj(x_BSH), tanh=True))
        return out_BSH


class Block(nn.Layer):
    """Attention, then feed-forward, each added to alpha times its own normalised input.

    Source: Zeng et al. 2022, arXiv:2210.02414, section 2.1 (DeepNorm of GLM-130B).
    """

    def __init__(self, config: ChatGlmConfig) -> None:
        super().__init__()
        self.alpha = math.sqrt(2 * config.num_layers)
        self.attention_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        x_BSH = self.attention_norm(x_BSH)
        x_BSH = self.ffn_norm(self.alpha * x_BSH + self.attention(x_BSH, context, cache))
        out_BSH: Tensor = self.alpha * x_BSH + self.feed_forward(x_BSH)
        return out_BSH


class ChatGlmForCausalLM(PlainDecoder):
    """Embedding, blocks, norm; the head is the embedding."""

    config: ChatGlmConfig

    def __init__(self, config: ChatGlmConfig) -> None:
        super().__init__(config, lambda: Block(config), LayerNorm(config.hidden_size, config.norm_eps))

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        tables = [
            rotary_tables(self.config.rotary, positions[:, row], num_tokens=self.config.max_positions) for row in (0, 1)
        ]
        return BlockContext(without_opening(mask, positions[:, 1]), rotary=(*tables[0], *tables[1]))


def _rotate(x_BSND: Tensor, rotary: tuple[Tensor, ...]) -> Tensor:
    first, second = x_BSND.chunk(2, axis=-1)
    halves = [apply_rotary(first, rotary[:2], style="half"), apply_rotary(second, rotary[2:], style="half")]
    return paddle.concat(halves, axis=-1)


def _linear(in_size: int, out_size: int, gain: float) -> nn.Linear:
    return nn.Linear(
        in_size, out_size, weight_attr=paddle.ParamAttr(initializer=nn.initializer.XavierNormal(gain=gain))
    )


def _branch_gain(config: ChatGlmConfig) -> float:
    """What DeepNorm scales the initial values by in all but queries and keys (Zeng et al. 2022, section 2.1)."""
    return 1 / math.sqrt(2 * config.num_layers)
