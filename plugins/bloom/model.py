"""The network of a BLOOM, on one device. Shape letters: B batch, S tokens, H hidden, N heads, D head size,
V vocabulary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
import paddle.nn.functional as F
from paddle import nn

from llm_run.core.causal_lm import BlockContext, CausalLM
from llm_run.core.ops import alibi_slopes, attention, gelu, layer_norm

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
            _linear(config.hidden_size, config.hidden_size, config.init_std) for _ in range(3)
        )
        self.o_proj = _linear(config.hidden_size, config.hidden_size, _residual_std(config))

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None) -> Tensor:
        q_BSND, k_BSND, v_BSND = (
            projection(x_BSH).reshape([*x_BSH.shape[:2], -1, self.head_dim])
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

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.up_proj = _linear(config.hidden_size, config.ffn_size, config.init_std)
        self.down_proj = _linear(config.ffn_size, config.hidden_size, _residual_std(config))

    def forward(self, x_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.down_proj(gelu(self.up_proj(x_BSH), tanh=True))
        return out_BSH


class Block(nn.Layer):
    """Attention, then feed-forward, each on the normalised residual stream and added to it.

    Source: BigScience 2022, arXiv:2211.05100, section 3.2.
    """

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.dropout = config.output_dropout
        self.attention_norm = LayerNorm(config)
        self.attention = Attention(config)
        self.ffn_norm = LayerNorm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSH: Tensor, context: BlockContext, cache: LayerCache | None = None) -> Tensor:
        x_BSH = x_BSH + self._drop(self.attention(self.attention_norm(x_BSH), context, cache))
        return x_BSH + self._drop(self.feed_forward(self.ffn_norm(x_BSH)))

    def _drop(self, x_BSH: Tensor) -> Tensor:
        return F.dropout(x_BSH, self.dropout, training=self.training) if self.dropout else x_BSH


class BloomForCausalLM(CausalLM):
    """Embedding with its norm, blocks, norm; the head is the embedding, or has a matrix of its own."""

    config: BloomConfig

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, weight_attr=_normal(config.init_std))
        self.embed_norm = LayerNorm(config)
        self.blocks = nn.LayerList([Block(config) for _ in range(config.num_layers)])
        self.norm = LayerNorm(config)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(
                config.hidden_size, config.vocab_size, weight_attr=_normal(config.init_std), bias_attr=False
            )

    def embed(self, input_ids_BS: Tensor, positions: Tensor) -> Tensor:
        hidden_BSH: Tensor = self.embed_norm(self.embed_tokens(input_ids_BS))
        return hidden_BSH

    def context(self, positions: Tensor, mask: AttentionMask) -> BlockContext:
        return BlockContext(mask)

    def finish(self, hidden_BSH: Tensor) -> Tensor:
        out_BSH: Tensor = self.norm(hidden_BSH)
        return out_BSH

    def head(self, hidden_BSH: Tensor) -> Tensor:
        logits_BSV: Tensor = (
            paddle.matmul(hidden_BSH, self.embed_tokens.weight, transpose_y=True)
            if self.config.tie_embeddings
            else self.lm_head(hidden_BSH)
        )
        return logits_BSV


class LayerNorm(nn.Layer):
    """A learned scale and offset on the normalised hidden state."""

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = self.create_parameter([config.hidden_size], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([config.hidden_size], is_bias=True)

    def forward(self, x_BSH: Tensor) -> Tensor:
        return layer_norm(x_BSH, self.weight, self.bias, eps=self.eps)


def _linear(in_size: int, out_size: int, std: float) -> nn.Linear:
    return nn.Linear(in_size, out_size, weight_attr=_normal(std))


def _normal(std: float) -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))


def _residual_std(config: BloomConfig) -> float:
    """Two matrices a block write to the residual stream: its variance stays that of one at any depth (GPT-2)."""
    return config.init_std / math.sqrt(2 * config.num_layers)
