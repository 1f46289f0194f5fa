"""The layers that families share, against formulas and torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
import torch
from paddle import nn

from llm_run.core.causal_lm import BlockContext
from llm_run.core.layers import (
    LayerNorm,
    PlainDecoder,
    PreNormBlock,
    RmsNorm,
    SwigluFeedForward,
    embedding,
    linear,
    residual_std,
)
from llm_run.core.ops.mask import AttentionMask


@dataclass
class Shape:
    vocab_size: int = 50
    hidden_size: int = 8
    num_layers: int = 2
    ffn_size: int = 12
    init_std: float = 0.02
    tie_embeddings: bool = False


class Doubling(nn.Layer):  # type: ignore[misc]
    """Stands for attention and for feed-forward."""

    def forward(self, x: Any, *_: Any) -> Any:
        return 2 * x


def config(**more: Any) -> Any:
    return Shape(**more)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_layer_norm_is_that_of_torch() -> None:
    ours, peer, x = LayerNorm(8, 1e-3), torch.nn.LayerNorm(8, eps=1e-3), random(2, 3, 8)
    ours.weight.set_value(random(8))
    ours.bias.set_value(random(8) + 1)
    peer.load_state_dict({"weight": torch.tensor(random(8)), "bias": torch.tensor(random(8) + 1)})
    assert np.allclose(ours(paddle.to_tensor(x)).numpy(), peer(torch.tensor(x)).detach().numpy(), atol=1e-5)


def test_rms_norm_is_that_of_torch() -> None:
    ours, peer, x = RmsNorm(8, 1e-3), torch.nn.RMSNorm(8, eps=1e-3), random(2, 3, 8)
    ours.weight.set_value(random(8))
    peer.load_state_dict({"weight": torch.tensor(random(8))})
    assert np.allclose(ours(paddle.to_tensor(x)).numpy(), peer(torch.tensor(x)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_swiglu_gates_with_silu(bias: bool) -> None:
    layer, x = SwigluFeedForward(config(init_std=0.5), bias=bias), random(2, 3, 8)
    gate, up, down = (each.weight.numpy() for each in (layer.gate_proj, layer.up_proj, layer.down_proj))
    expected = (x @ gate / (1 + np.exp(-(x @ gate))) * (x @ up)) @ down
    assert np.allclose(layer(paddle.to_tensor(x)).numpy(), expected, atol=1e-5)
    assert len(layer.parameters()) == (6 if bias else 3)


def test_a_block_adds_what_it_computes_of_normalised_states() -> None:
    block = PreNormBlock(nn.Identity(), Doubling(), nn.Identity(), Doubling())
    x = paddle.ones([1, 2, 8])
    assert (block(x, BlockContext(AttentionMask())).numpy() == 9).all()


def test_a_block_drops_what_it_adds_in_training_only() -> None:
    block = PreNormBlock(nn.Identity(), Doubling(), nn.Identity(), Doubling(), dropout=0.5)
    x, context = paddle.ones([4, 64, 8]), BlockContext(AttentionMask())
    # Each sum either stays or gains twice its double.
    assert set(np.unique(block(x, context).numpy())) == {1.0, 5.0, 25.0}
    block.eval()
    assert (block(x, context).numpy() == 9).all()


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_of_a_plain_decoder_is_its_own_matrix_or_the_embedding(tied: bool) -> None:
    model = PlainDecoder(config(tie_embeddings=tied), lambda: nn.Linear(8, 8), LayerNorm(8, 1e-5))
    hidden = random(2, 3, 8)
    matrix = model.embed_tokens.weight.numpy().T if tied else model.lm_head.weight.numpy()
    assert np.allclose(model.head(paddle.to_tensor(hidden)).numpy(), hidden @ matrix, atol=1e-5)
    assert hasattr(model, "lm_head") is not tied
    assert len(model.blocks) == 2


def test_a_plain_decoder_looks_tokens_up_and_normalises_last() -> None:
    model = PlainDecoder(config(), lambda: nn.Linear(8, 8), LayerNorm(8, 1e-5))
    ids = paddle.to_tensor([[3, 7]])
    embedded = model.embed(ids, ids)
    assert (embedded.numpy() == model.embed_tokens.weight.numpy()[[[3, 7]]]).all()
    assert (model.finish(embedded).numpy() == model.norm(embedded).numpy()).all()


def test_matrices_begin_normal_and_biases_at_zero() -> None:
    paddle.seed(1)
    for layer in (linear(400, 300, 0.05), embedding(400, 300, 0.05)):
        values = layer.weight.numpy()
        assert values.std() == pytest.approx(0.05, rel=0.02)
        assert abs(values.mean()) < 0.001
    assert not linear(3, 4, 0.05).bias.numpy().any()
    assert linear(3, 4, 0.05, bias=False).bias is None


def test_what_writes_to_the_residual_stream_keeps_its_variance() -> None:
    shape: Any = SimpleNamespace(init_std=0.02, num_layers=32)
    assert math.isclose(64 * residual_std(shape) ** 2, 0.02**2)
