"""Reading the config.json of a baichuan: which positions and which head it has, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_run.core.convert.load import build_empty
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import find_family, load_family
from llm_run.plugins.baichuan.config import SIZES, BaichuanConfig

# huggingface.co/baichuan-inc, config.json of Baichuan2-7B-Base and of Baichuan2-13B-Base
SEVEN: dict[str, Any] = {
    "architectures": ["BaichuanForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_max_length": 4096,
    "model_type": "baichuan",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "vocab_size": 125696,
}
THIRTEEN: dict[str, Any] = {
    **{key: value for key, value in SEVEN.items() if key != "max_position_embeddings"},
    "hidden_size": 5120,
    "intermediate_size": 13696,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "z_loss_weight": 0,
}
FIRST = {"vocab_size": 64000}


def test_the_published_configs_are_the_published_sizes() -> None:
    read = BaichuanConfig.from_fields
    assert read(SEVEN) == SIZES["baichuan2-7b"]
    assert read(THIRTEEN) == SIZES["baichuan2-13b"]
    assert read(SEVEN | FIRST) == SIZES["baichuan-7b"]
    assert read(THIRTEEN | FIRST) == SIZES["baichuan-13b"]


@pytest.mark.parametrize("name", ["BaichuanForCausalLM", "BaiChuanForCausalLM"])
def test_both_spellings_of_the_class_are_this_family(name: str) -> None:
    assert find_family(SEVEN | {"architectures": [name]}).card.name == "baichuan"


def test_a_smaller_model_has_the_positions_that_its_fields_speak_of() -> None:
    small = {"num_hidden_layers": 2}
    assert BaichuanConfig.from_fields(SEVEN | small).rotary is not None
    assert BaichuanConfig.from_fields(THIRTEEN | small).rotary is None
    assert BaichuanConfig.from_fields(SEVEN | small | {"alibi": True}).rotary is None


# As huggingface.co counts them; of the first generation also in the titles of github.com/baichuan-inc
PARAMETERS = {
    "baichuan-7b": 7_000_559_616,
    "baichuan-13b": 13_264_901_120,
    "baichuan2-7b": 7_505_973_248,
    "baichuan2-13b": 13_896_668_160,
}


@pytest.mark.parametrize(("size", "count"), PARAMETERS.items())
def test_a_published_size_has_the_published_number_of_parameters(size: str, count: int) -> None:
    model = build_empty(load_family("baichuan"), SIZES[size])
    assert sum(math.prod(parameter.shape) for parameter in model.parameters()) == count


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"hidden_act": "gelu"}, r"hidden_act: 'gelu' is not supported here\. A baichuan's feed-forward"),
    "tied": ({"tie_word_embeddings": True}, r"tie_word_embeddings: True is not supported here\. A baichuan's head is"),
    "groups": ({"num_key_value_heads": 8}, r"num_key_value_heads: 8 is not supported here\. Every head of a baichuan"),
    "z-loss": ({"z_loss_weight": 1e-4}, r"z_loss_weight: 0\.0001 is not supported here\. There is no z-loss here"),
    "heads": ({"num_attention_heads": 5}, r"num_attention_heads: 5 does not divide hidden_size \(4096\)"),
    "qkv": ({"fuse_attention_qkv": True}, r"fuse_attention_qkv: True is not supported here\. Save the model with sep"),
    "ffn": ({"fuse_attention_ffn": True}, r"fuse_attention_ffn: True is not supported here\. Save the model with sep"),
}


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_be_computed_wrongly_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=rf"^config\.json: {text}"):
        BaichuanConfig.from_fields(SEVEN | changes)
