"""The shape that most families have, in a config.json and in a row of a table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.registry.field_reader import FieldReader
from llm_run.core.registry.usual_fields import read_grouped_heads, read_shape, size_row, usual_fields

FIELDS: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256, "tie_word_embeddings": True, "initializer_range": 0.01,
}  # fmt: skip


def refusal(read: FieldReader) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        read.check()
    return str(caught.value).splitlines()


def test_a_shape_is_written_as_it_was_read() -> None:
    config: Any = SimpleNamespace(**read_shape(FieldReader(FIELDS)))
    assert usual_fields(config) == FIELDS


def test_the_spelling_of_gpt_2_is_read_as_well() -> None:
    old = {"vocab_size": 100, "n_embd": 64, "n_inner": 96, "n_layer": 3, "n_head": 4, "n_positions": 256}
    read = FieldReader(old)
    shape = read_shape(read, positions=("max_position_embeddings", "n_positions"))
    read.check()
    assert (shape["hidden_size"], shape["ffn_size"], shape["num_layers"], shape["num_heads"]) == (64, 96, 3, 4)
    assert (shape["max_positions"], shape["tie_embeddings"], shape["init_std"]) == (256, False, 0.02)


def test_the_longest_sequence_is_missed_unless_there_is_a_default() -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "max_position_embeddings"}
    assert read_shape(FieldReader(fields), default_positions=2048)["max_positions"] == 2048
    read = FieldReader(fields)
    read_shape(read)
    assert refusal(read) == [
        "config.json: max_position_embeddings: is missing. Add it: without it the shape of the model is not known."
    ]


@pytest.mark.parametrize(
    ("more", "given", "heads", "head_dim"),
    [({}, 0, 4, 16), ({"num_key_value_heads": 2}, 0, 2, 16), ({"head_dim": 24}, 0, 4, 24), ({}, 128, 4, 128)],
)
def test_heads_follow_from_the_hidden_size_unless_they_are_said(
    more: dict[str, int], given: int, heads: int, head_dim: int
) -> None:
    read = FieldReader(FIELDS | more)
    shape = read_grouped_heads(read, read_shape(read), head_dim=given)
    read.check()
    assert (shape["num_kv_heads"], shape["head_dim"], shape["vocab_size"]) == (heads, head_dim, 100)


def test_heads_that_do_not_fit_are_refused() -> None:
    read = FieldReader(FIELDS | {"num_attention_heads": 5, "num_key_value_heads": 2})
    read_grouped_heads(read, read_shape(read))
    assert refusal(read) == [
        "config.json: num_key_value_heads: 2 does not divide num_attention_heads (5). Mend the file.",
        "config.json: num_attention_heads: 5 does not divide hidden_size (64). Mend the file.",
    ]


def test_a_row_of_a_table_is_a_shape() -> None:
    assert size_row(100, 64, 3, 4, 2, 96, 256) == {
        "vocab_size": 100, "hidden_size": 64, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16,
        "ffn_size": 96, "max_positions": 256,
    }  # fmt: skip
    assert size_row(100, 64, 3, 4, 2, 96, 256, head_dim=24)["head_dim"] == 24
