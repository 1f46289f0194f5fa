"""Reading the config.json of a llama: spellings, what is refused, and the table of sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_run.core.convert.load import build_empty
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import find_family, load_family
from llm_run.plugins.llama.config import SIZES, LlamaConfig

SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
PARAMETERS = {
    "llama-7b": 6_738_415_616,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}
"""As huggingface.co counts them in the published weights."""


@pytest.mark.parametrize(("size", "count"), PARAMETERS.items())
def test_a_published_size_has_the_published_number_of_parameters(size: str, count: int) -> None:
    model = build_empty(load_family("llama"), SIZES[size])
    assert sum(math.prod(parameter.shape) for parameter in model.parameters()) == count


def test_three_spellings_of_rotary_scaling_are_one_config() -> None:
    old = {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}
    paddlenlp = {"rope_scaling_type": "linear", "rope_scaling_factor": 2.0}
    read = [LlamaConfig.from_fields(SHAPE | spelling) for spelling in (old, new, paddlenlp)]
    assert read[0] == read[1] == read[2]
    assert read[0].rotary.scaling is not None


def test_names_of_older_models_are_understood() -> None:
    older = {"n_embd": 64, "n_inner": 96, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 100}
    assert LlamaConfig.from_fields(older) == LlamaConfig.from_fields(SHAPE)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"hidden_act": "gelu"}, r"hidden_act: 'gelu' is not supported here\. llama's feed-forward part is"),
    "alibi": ({"alibi": True}, r"alibi: True is not supported here\. A llama with ALiBi is a Baichuan 13B"),
    "groups": ({"num_key_value_heads": 3}, r"num_key_value_heads: 3 does not divide num_attention_heads \(4\)"),
    "heads": ({"num_attention_heads": 5}, r"num_attention_heads: 5 does not divide hidden_size \(64\)"),
    "fused": ({"fuse_attention_qkv": True}, r"fuse_attention_qkv: True is not supported here\. Save the model with"),
    "experts": ({"num_local_experts": 8}, r"num_local_experts: 8 is not supported here"),
    "window": ({"sliding_window": 128}, r"sliding_window: 128 asks for windowed attention.* to at most 128"),
    "scaling": ({"rope_scaling": {"type": "su", "factor": 2.0}}, r"rope_scaling: 'su' is a rotary scaling that"),
}


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_be_computed_wrongly_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=rf"^config\.json: {text}"):
        LlamaConfig.from_fields(SHAPE | changes)


def test_a_mistral_whose_config_is_silent_has_the_window_of_its_first_version() -> None:
    mistral = SHAPE | {"model_type": "mistral", "max_position_embeddings": 32768}
    with pytest.raises(RefusedError, match=r"sliding_window: 4096 asks for"):
        LlamaConfig.from_fields(mistral)
    assert LlamaConfig.from_fields(mistral | {"sliding_window": None}).max_positions == 32768


@pytest.mark.parametrize(
    "fields", [{"architectures": ["LlamaForCausalLM"]}, {"model_type": "llama"}, {"model_type": "mistral"}]
)
def test_a_llama_is_found_by_its_config(fields: dict[str, Any]) -> None:
    assert find_family(fields).card.name == "llama"
