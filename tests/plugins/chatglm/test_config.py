"""config.json in both spellings, and the two-dimensional positions."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.manager import find_family, load_family

# huggingface.co/THUDM/chatglm-6b, config.json
PUBLISHED = {
    "architectures": ["ChatGLMModel"],
    "bos_token_id": 130004,
    "eos_token_id": 130005,
    "mask_token_id": 130000,
    "gmask_token_id": 130001,
    "pad_token_id": 3,
    "hidden_size": 4096,
    "inner_hidden_size": 16384,
    "layernorm_epsilon": 1e-05,
    "max_sequence_length": 2048,
    "model_type": "chatglm",
    "num_attention_heads": 32,
    "num_layers": 28,
    "position_encoding_2d": True,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 130528,
}
GMASK, SOP, MASK = 501, 504, 500


@pytest.fixture(scope="module")
def tiny() -> ModelConfig:
    return load_family("chatglm").card.sizes["tiny"]


def refusal(fields: dict[str, object]) -> str:
    with pytest.raises(RefusedError) as raised:
        load_family("chatglm").card.config_class.from_fields(fields)
    return str(raised.value)


def test_the_published_config_is_the_published_size() -> None:
    family = find_family(PUBLISHED)
    assert family.card.name == "chatglm"
    assert family.card.config_class.from_fields(PUBLISHED) == family.card.sizes["chatglm-6b"]


def test_paddlenlp_leaves_out_what_is_default() -> None:
    card = load_family("chatglm").card
    config = card.config_class.from_fields({"architectures": ["ChatGLMForCausalLM"], "vocab_size": 130528})
    assert config == card.sizes["chatglm-6b"]


def test_a_later_generation_is_refused() -> None:
    text = refusal({**PUBLISHED, "multi_query_attention": True})
    assert text == "config.json: multi_query_attention: True is of a later ChatGLM. Use its own family."


def test_what_would_change_the_numbers_is_refused() -> None:
    for key, value, remedy in (
        ("position_encoding_2d", False, "ChatGLM-6B has two-dimensional positions."),
        ("activation", "geglu", "ChatGLM-6B's feed-forward part is GELU."),
        ("tie_word_embeddings", False, "ChatGLM-6B's head is its embedding."),
        ("attention_scale", False, "ChatGLM-6B's scores are divided by the root of the size."),
        ("quantization_bit", 4, "Convert the unquantized model."),
        ("pre_seq_len", 128, "Load the model without its prefix encoder."),
    ):
        assert refusal({**PUBLISHED, key: value}) == f"config.json: {key}: {value!r} is not supported here. {remedy}"


def test_a_special_token_outside_the_vocabulary_is_refused() -> None:
    assert refusal({**PUBLISHED, "vocab_size": 130005}) == (
        "config.json: eos_token_id: 130005 is not below vocab_size (130005). Write the tokenizer's id there."
    )


def test_positions_equal_the_published_example(tiny: ModelConfig, golden: ModuleType) -> None:
    # modeling_chatglm.py, get_position_ids: row 0 stays at the blank after the context, row 1 counts from it.
    ids = np.array([[7, 8, 9, GMASK, SOP, 11, 12]])
    prompt = np.array([[True] * 5 + [False] * 2])
    positions = tiny.positions(ids, np.ones_like(ids), prompt)
    assert positions.tolist() == [[[0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 3]]]


def test_a_blank_in_the_middle_is_where_the_answer_stands(tiny: ModelConfig) -> None:
    ids = np.array([[7, MASK, 9, 10, SOP, 11]])
    positions = tiny.positions(ids, np.ones_like(ids), np.array([[True] * 5 + [False]]))
    assert positions.tolist() == [[[0, 1, 2, 3, 1, 1], [0, 0, 0, 0, 1, 2]]]


def test_packed_and_padded_records_are_numbered_each_for_itself(tiny: ModelConfig) -> None:
    first, second = [7, GMASK, SOP, 11], [8, 9, GMASK, SOP, 12]
    ids = np.array([[0, *first, *second, 0]])
    segments = np.array([[0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0]])
    prompt = np.array([[0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0]], dtype=bool)
    positions = tiny.positions(ids, segments, prompt)
    assert positions[0, 0].tolist() == [0, 0, 1, 1, 1, 0, 1, 2, 2, 2, 0]
    assert positions[0, 1].tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 1, 2, 0]


def test_text_without_prompt_follows_an_empty_context(tiny: ModelConfig) -> None:
    ids = np.array([[7, 8, 9]])
    assert tiny.positions(ids, np.ones_like(ids), np.zeros_like(ids, dtype=bool)).tolist() == [[[0, 0, 0], [1, 2, 3]]]


def test_a_prompt_that_ends_in_half_an_answer_goes_on_with_it(tiny: ModelConfig) -> None:
    ids = np.array([[7, GMASK, SOP, 11, 12, 13]])
    positions = tiny.positions(ids, np.ones_like(ids), np.array([[True] * 5 + [False]]))
    assert positions.tolist() == [[[0, 1, 1, 1, 1, 1], [0, 0, 1, 2, 3, 4]]]
