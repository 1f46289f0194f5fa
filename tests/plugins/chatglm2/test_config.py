"""Reading the config.json of a ChatGLM2 or ChatGLM3: spellings, the generation, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import find_family
from llm_run.plugins.chatglm2.config import SIZES, ChatGlm2Config

# huggingface.co/THUDM/chatglm2-6b, config.json
SECOND: dict[str, Any] = {
    "_name_or_path": "THUDM/chatglm2-6b",
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "ffn_hidden_size": 13696,
    "fp32_residual_connection": False,
    "hidden_dropout": 0.0,
    "hidden_size": 4096,
    "kv_channels": 128,
    "layernorm_epsilon": 1e-05,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_layers": 28,
    "original_rope": True,
    "padded_vocab_size": 65024,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 32768,
    "use_cache": True,
    "torch_dtype": "float16",
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
THIRD = SECOND | {"_name_or_path": "THUDM/chatglm3-6b", "seq_length": 8192}
NAMELESS = {"_name_or_path": "a/finetune"}
read = ChatGlm2Config.from_fields


def test_the_published_configs_are_the_published_sizes() -> None:
    assert find_family(SECOND).card.name == "chatglm2"
    assert read(SECOND) == SIZES["chatglm2-6b"]
    assert read(THIRD) == SIZES["chatglm3-6b"]
    assert read(THIRD | {"seq_length": 32768, "rope_ratio": 50}) == SIZES["chatglm3-6b-32k"]


def test_paddlenlp_leaves_out_what_is_default() -> None:
    fields = {
        "model_type": "chatglm_v2",
        "architectures": ["ChatGLMv2ForCausalLM"],
        "vocab_size": 65024,
        "add_qkv_bias": True,
        "multi_query_group_num": 2,
        "max_sequence_length": 2048,
    }
    assert find_family(fields).card.name == "chatglm2"
    assert read(fields) == SIZES["chatglm2-6b"]


def test_a_header_of_a_gguf_file_is_of_this_family() -> None:
    # It has the model_type of the first generation, and no other name; llama.cpp has no ChatGLM of the first.
    header = {"model_type": "chatglm", "vocab_size": 65024, "num_key_value_heads": 2, "max_position_embeddings": 8192}
    assert find_family(header).card.name == "chatglm2"
    assert read(header | {"attention_bias": True}) == SIZES["chatglm3-6b"]
    stretched = header | {"max_position_embeddings": 32768, "rope_theta": 500000.0, "attention_bias": True}
    assert read(stretched) == SIZES["chatglm3-6b-32k"]


def test_the_generation_is_told_by_the_name_and_then_by_the_length() -> None:
    assert read(THIRD | NAMELESS).generation == 3
    assert read(SECOND | NAMELESS).generation == 2
    assert read(THIRD | {"seq_length": 32768}).generation == 3
    assert read(SECOND | NAMELESS | {"generation": 3}).generation == 3


def test_the_ratio_means_what_it_means_in_the_generation() -> None:
    second, third = (read(fields | {"rope_ratio": 4}).rotary for fields in (SECOND, THIRD))
    assert (third.base, third.scaling) == (40000.0, None)
    assert second.scaling is not None
    assert (second.base, second.scaling.kind, second.scaling.factor) == (10000.0, "linear", 4.0)


def test_a_ratio_without_a_generation_is_refused() -> None:
    with pytest.raises(RefusedError) as refusal:
        read(SECOND | NAMELESS | {"rope_ratio": 16})
    assert str(refusal.value) == (
        "config.json: rope_ratio: 16.0 divides positions in a ChatGLM2 and raises the base in a ChatGLM3, and the "
        'file names neither. Add "generation": 2, or 3.'
    )


@pytest.mark.parametrize(
    ("name", "value", "usual"),
    [
        ("add_bias_linear", True, False),
        ("apply_residual_connection_post_layernorm", True, False),
        ("attention_dropout", 0.1, 0.0),
        ("hidden_dropout", 0.1, 0.0),
        ("interleaved_qkv", True, False),
        ("multi_query_attention", False, True),
        ("original_rope", False, True),
        ("post_layer_norm", False, True),
        ("pre_seq_len", 128, 0),
        ("quantization_bit", 4, 0),
        ("rmsnorm", False, True),
        ("tie_word_embeddings", True, False),
        ("use_long_sequence_strategies", True, False),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(name: str, value: Any, usual: Any) -> None:
    with pytest.raises(RefusedError) as refusal:
        read(SECOND | {name: value})
    assert str(refusal.value) == f"config.json: {name}: {value!r} is not supported here. Only {usual} is."


def test_shapes_that_do_not_fit_are_refused() -> None:
    for fields, text in (
        ({"multi_query_group_num": 3}, "multi_query_group_num: 3 does not divide num_attention_heads (32)"),
        ({"kv_channels": 30}, "kv_channels: 30 is no multiple of 4: the halves of half a head turn together"),
        ({"rope_theta": 500000.0}, "rope_theta: 500000.0 is not supported here. A ChatGLM2 has 10000"),
        ({"generation": 4}, "generation: 4 is not supported here. This family has the second and the third"),
    ):
        with pytest.raises(RefusedError) as refusal:
            read(SECOND | fields)
        assert str(refusal.value).startswith(f"config.json: {text}.")
