"""A baichuan against a llama of transformers, which it equals once its peculiarities are taken into account."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import torch

from llm_run.core.causal_lm import CausalLM
from llm_run.core.ops import linear_cross_entropy

Logits = Callable[[CausalLM, np.ndarray], np.ndarray]
IDS = np.random.default_rng(0).integers(0, 300, [2, 60])


def reference(peer: Any, **inputs: Any) -> np.ndarray:
    with torch.no_grad():
        logits = np.asarray(peer(torch.tensor(IDS), **inputs).logits.numpy())
    assert np.abs(logits).max() > 1.0
    return logits


def normalize_head(peer: Any) -> None:
    """What github.com/baichuan-inc/Baichuan2, README, says that turns a Baichuan 2 into a Baichuan 1."""
    peer.lm_head.weight.data = torch.nn.functional.normalize(peer.lm_head.weight.data)


def biases() -> torch.Tensor:
    """ALiBi of 6 heads from the paper: the slopes of 4 heads, then every other one of 8."""
    slopes = [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    distance = torch.arange(60)[None, :] - torch.arange(60)[:, None]
    bias = torch.tensor(slopes)[:, None, None] * distance
    return bias.masked_fill(distance > 0, -math.inf)[None].float()


def test_7b_equals_a_llama_of_transformers(
    llama: Callable[..., Any],
    write_baichuan: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Logits,
) -> None:
    peer = llama()
    model = load(write_baichuan(peer))
    assert np.abs(logits(model, IDS) - reference(peer)).max() < 1e-4


def test_13b_equals_a_llama_of_transformers(
    llama: Callable[..., Any],
    write_baichuan: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Logits,
) -> None:
    # Position 0 turns nothing, and the mask brings the biases.
    peer = llama()
    model = load(write_baichuan(peer, alibi=True))
    still = torch.zeros([2, 60], dtype=torch.int64)
    expected = reference(peer, position_ids=still, attention_mask=biases().expand(2, -1, -1, -1))
    assert np.abs(logits(model, IDS) - expected).max() < 1e-4


def test_the_second_generation_normalizes_the_rows_of_its_head(
    llama: Callable[..., Any],
    write_baichuan: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Logits,
) -> None:
    peer = llama()
    peer.lm_head.weight.data *= torch.linspace(0.1, 10.0, 300)[:, None]
    model = load(write_baichuan(peer, second=True))
    normalize_head(peer)
    assert np.abs(logits(model, IDS) - reference(peer)).max() < 1e-4
    model.train()
    assert np.abs(logits(model, IDS) - reference(peer)).max() < 1e-4


def test_a_head_that_is_normalized_already_stays_as_it_is(
    llama: Callable[..., Any],
    write_baichuan: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Logits,
) -> None:
    """As in the files of PaddleNLP and in some GGUF files."""
    peer = llama()
    normalize_head(peer)
    assert np.abs(logits(load(write_baichuan(peer, second=True)), IDS) - reference(peer)).max() < 1e-4


def test_gradients_of_a_normalized_head_equal_those_of_torch(
    llama: Callable[..., Any], write_baichuan: Callable[..., Path], load: Callable[[Path], CausalLM]
) -> None:
    model = load(write_baichuan(llama(), second=True))
    weight_HV = model.lm_head.weight
    with paddle.no_grad():
        weight_HV[:, 7] = 0.0  # an empty row must not turn the others into NaN
    hidden_BSH = np.random.default_rng(1).normal(size=[1, 9, 48]).astype(np.float32)
    labels_BS = IDS[:1, :9] % 6
    loss, _ = linear_cross_entropy(paddle.to_tensor(hidden_BSH), model.head, paddle.to_tensor(labels_BS))
    loss.backward()
    theirs_VH = torch.tensor(weight_HV.numpy().T.copy(), requires_grad=True)
    logits = torch.tensor(hidden_BSH[0]) @ torch.nn.functional.normalize(theirs_VH).T
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels_BS[0]), reduction="sum").backward()
    assert theirs_VH.grad is not None
    ours, theirs = weight_HV.grad.numpy().T, theirs_VH.grad.numpy()
    rows = np.arange(300) != 7
    assert np.abs(ours[rows] - theirs[rows]).max() < 1e-5
    assert np.isfinite(ours).all()
