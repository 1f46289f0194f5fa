"""Reading the config.json of a BLOOM: spellings, what is refused, and the table of sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_run.core.convert.load import build_empty
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import find_family, load_family
from llm_run.plugins.bloom.config import SIZES, BloomConfig

SHAPE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 64, "n_layer": 2, "n_head": 4}
# huggingface.co/bigscience/bloom-560m, config.json
PUBLISHED: dict[str, Any] = {
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout": 0.0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "masked_softmax_fusion": True,
    "model_type": "bloom",
    "n_embed": 1024,
    "n_inner": None,
    "n_layer": 24,
    "num_attention_heads": 16,
    "offset_alibi": 100,
    "pad_token_id": 3,
    "pretraining_tp": 1,
    "seq_length": 2048,
    "skip_bias_add": True,
    "skip_bias_add_qkv": False,
    "unk_token_id": 0,
    "vocab_size": 250880,
}
PARAMETERS = {
    "bloom-560m": 559_214_592,
    "bloom-1b1": 1_065_314_304,
    "bloom-1b7": 1_722_408_960,
    "bloom-3b": 3_002_557_440,
    "bloom-7b1": 7_069_016_064,
    "bloom": 176_247_271_424,
}
"""As the model cards on huggingface.co count them."""


@pytest.mark.parametrize(("size", "count"), PARAMETERS.items())
def test_a_published_size_has_the_published_number_of_parameters(size: str, count: int) -> None:
    model = build_empty(load_family("bloom"), SIZES[size])
    assert sum(math.prod(parameter.shape) for parameter in model.parameters()) == count


def test_the_published_config_is_the_published_size() -> None:
    assert BloomConfig.from_fields(PUBLISHED) == SIZES["bloom-560m"]


def test_names_of_a_gguf_header_are_understood() -> None:
    header = {
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 2048, "num_key_value_heads": 4,
    }  # fmt: skip
    assert BloomConfig.from_fields(header) == BloomConfig.from_fields(SHAPE)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "residual": (
        {"apply_residual_connection_post_layernorm": True},
        r"apply_residual_connection_post_layernorm: True is not supported here\. A BLOOM adds to what stands before",
    ),
    "slopes": ({"alibi_bias_max": 16.0}, r"alibi_bias_max: 16\.0 is not supported here\. A BLOOM's slopes are those"),
    "width": ({"intermediate_size": 128}, r"intermediate_size: 128 is not supported here\. A BLOOM's is four times"),
    "heads": ({"n_head": 5}, r"n_head: 5 does not divide the hidden size \(64\)"),
    "dropout": ({"hidden_dropout": 1}, r"hidden_dropout: 1 is not a share from 0 up to 1"),
    "long": ({"use_long_sequence_strategies": True}, r"use_long_sequence_strategies: True is not supported here"),
}


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_be_computed_wrongly_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=rf"^config\.json: {text}"):
        BloomConfig.from_fields(SHAPE | changes)


@pytest.mark.parametrize(
    "fields", [{"architectures": ["BloomForCausalLM"]}, {"architectures": ["BloomModel"]}, {"model_type": "bloom"}]
)
def test_a_bloom_is_found_by_its_config(fields: dict[str, Any]) -> None:
    assert find_family(fields).card.name == "bloom"
