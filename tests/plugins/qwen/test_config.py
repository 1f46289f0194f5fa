"""Reading the config.json of a qwen: its generations, what is refused, and the table of sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_run.core.convert.load import build_empty
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import find_family, load_family
from llm_run.plugins.qwen.config import SIZES, QwenConfig

LATER: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FIRST: dict[str, Any] = {
    "model_type": "qwen",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "seq_length": 64,
    "max_position_embeddings": 256,
}
PARAMETERS = {
    "qwen-1.8b": 1_836_828_672,
    "qwen-7b": 7_721_324_544,
    "qwen-14b": 14_167_290_880,
    "qwen-72b": 72_287_920_128,
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen2-72b": 72_706_203_648,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
}
"""As huggingface.co counts them in the published weights; tied heads once."""


@pytest.mark.parametrize(("size", "count"), PARAMETERS.items())
def test_a_published_size_has_the_published_number_of_parameters(size: str, count: int) -> None:
    model = build_empty(load_family("qwen"), SIZES[size])
    assert sum(math.prod(parameter.shape) for parameter in model.parameters()) == count


def test_each_branch_of_the_first_generation_has_half_of_intermediate_size() -> None:
    config = QwenConfig.from_fields(FIRST)
    assert (config.generation, config.ffn_size, config.num_kv_heads, config.logn_length) == (1, 96, 4, 64)
    assert config.rotary.scaling is not None and config.rotary.scaling.original_max_positions == 64


def test_ntk_and_logn_are_turned_off_apart() -> None:
    neither = QwenConfig.from_fields(FIRST | {"use_dynamic_ntk": False, "use_logn_attn": False})
    assert (neither.rotary.scaling, neither.logn_length) == (None, 0)
    only_ntk = QwenConfig.from_fields(FIRST | {"use_logn_attn": False})
    assert only_ntk.rotary.scaling is not None and only_ntk.logn_length == 0
    assert QwenConfig.from_fields(only_ntk.to_fields()) == only_ntk
    only_logn = QwenConfig.from_fields(FIRST | {"use_dynamic_ntk": False})
    assert only_logn.rotary.scaling is None and only_logn.logn_length == 64
    assert QwenConfig.from_fields(only_logn.to_fields()) == only_logn


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "window": (
        LATER | {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 2},
        r"use_sliding_window: True asks for a window that llm-run does not have\. Set it to false, and .* at most 128",
    ),
    "activation": (LATER | {"hidden_act": "relu"}, r"hidden_act: 'relu' is not supported here"),
    "bias of 3": (LATER | {"model_type": "qwen3", "attention_bias": True}, r"attention_bias: True is not supported"),
    "groups": (LATER | {"num_key_value_heads": 3}, r"num_key_value_heads: 3 does not divide num_attention_heads"),
    "biases": (FIRST | {"no_bias": False}, r"no_bias: False is not supported here"),
    "partial": (FIRST | {"rotary_pct": 0.5}, r"rotary_pct: 0\.5 is not supported here"),
    "channels": (FIRST | {"kv_channels": 8}, r"kv_channels: 8 times num_attention_heads is not hidden_size"),
    "odd": (FIRST | {"intermediate_size": 193}, r"intermediate_size: 193 is odd, and each branch is half of it"),
    "generation": (LATER | {"model_type": "qwen9"}, r"model_type: 'qwen9' is no generation of qwen\. Known: qwen, "),
}


@pytest.mark.parametrize(("fields", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_be_computed_wrongly_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=rf"^config\.json: {text}"):
        QwenConfig.from_fields(fields)


HARMLESS: dict[str, dict[str, Any]] = {
    "turned off": {"use_sliding_window": False, "sliding_window": 16},
    "in no layer": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 4},
    "as long as the sequence": {"use_sliding_window": True, "sliding_window": 256, "max_window_layers": 0},
    "in none of the listed layers": {
        "use_sliding_window": True,
        "sliding_window": 16,
        "layer_types": ["full_attention"] * 4,
    },
}


@pytest.mark.parametrize("changes", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_window_that_changes_nothing_is_accepted(changes: dict[str, Any]) -> None:
    assert QwenConfig.from_fields(LATER | changes) == QwenConfig.from_fields(LATER)


@pytest.mark.parametrize("architecture", ["QWenLMHeadModel", "QWenForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_a_qwen_is_found_by_its_config(architecture: str) -> None:
    assert find_family({"architectures": [architecture]}).card.name == "qwen"
