"""Reading the config.json of a GPT: two spellings, what is refused, and the table of sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_run.core.convert.load import build_empty
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import find_family, load_family
from llm_run.plugins.gpt3.config import SIZES, GptConfig

SHAPE: dict[str, Any] = {"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
PARAMETERS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}
"""As huggingface.co counts them in the published weights."""


@pytest.mark.parametrize(("size", "count"), PARAMETERS.items())
def test_a_published_size_has_the_published_number_of_parameters(size: str, count: int) -> None:
    model = build_empty(load_family("gpt3"), SIZES[size])
    assert sum(math.prod(parameter.shape) for parameter in model.parameters()) == count


def test_both_spellings_are_one_config() -> None:
    paddlenlp = {
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 256, "hidden_activation": "gelu", "layer_norm_eps": 1e-12,
    }  # fmt: skip
    assert GptConfig.from_fields(paddlenlp) == GptConfig.from_fields(SHAPE)


def test_gelu_is_exact_in_hugging_faces_spelling_and_tanh_in_paddlenlps() -> None:
    assert GptConfig.from_fields(SHAPE | {"activation_function": "gelu"}).exact_gelu
    assert not GptConfig.from_fields(SHAPE | {"hidden_activation": "gelu"}).exact_gelu


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"activation_function": "relu"}, r"activation_function: 'relu' is not supported here\. A GPT's"),
    "paddlenlp's activation": ({"hidden_activation": "silu"}, r"hidden_activation: 'silu' is not supported here\. A"),
    "norm": ({"normalize_before": False}, r"normalize_before: False is not supported here\. A GPT normalises before"),
    "scores": ({"scale_attn_weights": False}, r"scale_attn_weights: False is not supported here\. A GPT's scores"),
    "layers": ({"scale_attn_by_inverse_layer_idx": True}, r"scale_attn_by_inverse_layer_idx: True is not supported"),
    "coefficient": ({"scale_qk_coeff": 2.0}, r"scale_qk_coeff: 2\.0 is not supported here\. A GPT's scores"),
    "encoder": ({"add_cross_attention": True}, r"add_cross_attention: True is not supported here\. A GPT here has no"),
    "experts": ({"num_experts": 8}, r"num_experts: 8 is not supported here\. A GPT here has one feed-forward part"),
    "heads": ({"n_head": 5}, r"n_head: 5 does not divide the hidden size \(64\)"),
    "dropout": ({"resid_pdrop": 1.0}, r"resid_pdrop: 1\.0 is not a share from 0 up to 1"),
}


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_be_computed_wrongly_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=rf"^config\.json: {text}"):
        GptConfig.from_fields(SHAPE | changes)


@pytest.mark.parametrize(
    "fields", [{"architectures": ["GPT2LMHeadModel"]}, {"architectures": ["GPTForCausalLM"]}, {"model_type": "gpt2"}]
)
def test_a_gpt_is_found_by_its_config(fields: dict[str, Any]) -> None:
    assert find_family(fields).card.name == "gpt3"
