"""config.json as published, and the two-dimensional positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.manager import find_family, load_family

# huggingface.co/THUDM/glm-10b-chinese, config.json
PUBLISHED: dict[str, Any] = {
    "architectures": ["GLMModel"],
    "attention_dropout_prob": 0.1,
    "attention_scale": 1.0,
    "block_position_encoding": True,
    "checkpoint_num_layers": 1,
    "embedding_dropout_prob": 0.1,
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "max_sequence_length": 1024,
    "model_type": "glm",
    "num_attention_heads": 64,
    "num_layers": 48,
    "output_dropout_prob": 0.1,
    "output_predict": True,
    "parallel_output": True,
    "pool_token": "cls",
    "relative_encoding": False,
    "spell_func": "lstm",
    "spell_length": None,
    "vocab_size": 50048,
}
MASK, SMASK, GMASK, SOP = 503, 508, 509, 506


@pytest.fixture(scope="module")
def tiny() -> ModelConfig:
    return load_family("glm").card.sizes["tiny"]


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(RefusedError) as raised:
        load_family("glm").card.config_class.from_fields(fields)
    return str(raised.value)


def test_the_published_config_is_the_published_size() -> None:
    family = find_family(PUBLISHED)
    assert family.card.name == "glm"
    assert family.card.config_class.from_fields(PUBLISHED) == family.card.sizes["glm-10b-chinese"]


def test_a_glm_4_is_refused() -> None:
    text = refusal({**PUBLISHED, "num_key_value_heads": 2})
    assert text.startswith("config.json: num_key_value_heads: 2 is of GLM-4 or later, which is another network. ")


def test_what_would_change_the_numbers_is_refused() -> None:
    for key, value, remedy in (
        ("block_position_encoding", False, "A GLM has two-dimensional positions."),
        ("relative_encoding", True, "Relative positions are of no published GLM."),
    ):
        assert refusal({**PUBLISHED, key: value}) == f"config.json: {key}: {value!r} is not supported here. {remedy}"


def test_an_unknown_vocabulary_must_say_its_blanks() -> None:
    assert refusal({**PUBLISHED, "vocab_size": 60000}) == (
        "config.json: sop_token_id, blank_token_ids: [None, None] are not ids of a vocabulary of 60000. "
        "Add sop_token_id and blank_token_ids, a list of the ids of [MASK], [sMASK] and [gMASK]."
    )
    said = {**PUBLISHED, "vocab_size": 60000, "sop_token_id": 7, "blank_token_ids": [8, 9]}
    config = load_family("glm").card.config_class.from_fields(said)
    assert (config.sop_id, config.blank_ids) == (7, (8, 9))  # type: ignore[attr-defined]


def test_a_dropout_that_is_no_share_is_refused() -> None:
    text = refusal({**PUBLISHED, "output_dropout_prob": 1.5})
    assert text == "config.json: output_dropout_prob: 1.5 is not a share from 0 up to 1. Mend the file."


@pytest.mark.parametrize("blank", [MASK, SMASK, GMASK])
def test_what_fills_a_blank_stands_where_the_blank_is(tiny: ModelConfig, blank: int) -> None:
    ids = np.array([[7, blank, 9, MASK, SOP, 11]])
    positions = tiny.positions(ids, np.ones_like(ids), np.array([[True] * 5 + [False]]))
    assert positions.tolist() == [[[0, 1, 2, 3, 1, 1], [0, 0, 0, 0, 1, 2]]]


def test_packed_and_padded_records_are_numbered_each_for_itself(tiny: ModelConfig) -> None:
    first, second = [7, GMASK, SOP, 11], [8, MASK, 9, SOP, 12]
    ids = np.array([[0, *first, *second, 0]])
    segments = np.array([[0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0]])
    prompt = np.array([[0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0]], dtype=bool)
    positions = tiny.positions(ids, segments, prompt)
    assert positions[0, 0].tolist() == [0, 0, 1, 1, 1, 0, 1, 2, 1, 1, 0]
    assert positions[0, 1].tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 1, 2, 0]


def test_text_without_prompt_follows_an_empty_context(tiny: ModelConfig) -> None:
    ids = np.array([[7, 8, 9]])
    assert tiny.positions(ids, np.ones_like(ids), np.zeros_like(ids, dtype=bool)).tolist() == [[[0, 0, 0], [1, 2, 3]]]
