"""What is made of a model that is loaded to be asked something."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.errors import RefusedError
from llm_run.core.ops import AttentionMask
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.layer import InputQuantization, quantized_layers
from llm_run.core.quant.quantize import quantize_weights
from llm_run.core.quant.start import round_activations
from llm_run.core.registry.manager import load_family


@pytest.fixture
def model() -> CausalLM:
    """A tiny llama of floats."""
    family = load_family("llama")
    paddle.seed(5)
    built = family.build_model(family.card.sizes["tiny"])
    built.eval()
    return built


def rounded(model: CausalLM) -> CausalLM:
    quantize_weights(model, load_family("llama").quantizable_layers(model.config), GridSpec(8, -1))
    return model


def logits(model: CausalLM) -> np.ndarray:
    ids = paddle.arange(3, 20).unsqueeze(0)
    with paddle.no_grad():
        hidden_BSH = model(ids, paddle.arange(17).unsqueeze(0), AttentionMask())
        return np.asarray(model.head(hidden_BSH).numpy())


def test_activations_of_8_bits_change_the_logits_of_integer_weights_a_little(model: CausalLM) -> None:
    before = logits(rounded(model))
    round_activations(model)
    assert all(layer.inputs == InputQuantization(by_block=True) for layer in quantized_layers(model).values())
    assert 1e-4 < np.abs(logits(model) - before).max() / np.abs(before).max() < 0.03


def test_a_model_of_floats_has_no_activations_to_round(model: CausalLM) -> None:
    with pytest.raises(RefusedError, match=r"--activations_int8: true is for integer weights, and the model has none"):
        round_activations(model)


def test_the_activations_of_a8w8_are_of_8_bits_already(model: CausalLM) -> None:
    layers = quantized_layers(rounded(model)).values()
    for layer in layers:
        layer.inputs = InputQuantization(0.02)
    with pytest.raises(RefusedError, match="the model is A8W8, whose activations are of 8 bits already"):
        round_activations(model)
    assert all(layer.inputs == InputQuantization(0.02) for layer in layers)
