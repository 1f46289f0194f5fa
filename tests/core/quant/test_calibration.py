"""Records and plain text as rows of tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llm_run.core.data.encoding import Encoder
from llm_run.core.errors import DataError
from llm_run.core.quant.calibration import TextEncoder


@pytest.fixture
def encoder() -> TextEncoder:
    """One token a character, and an opening token."""
    tokenizer: Any = SimpleNamespace(
        encode=lambda text: [ord(letter) for letter in text], prompt=lambda ids: [1, *ids], eos_id=2
    )
    return TextEncoder(Encoder(tokenizer, None, src_length=6, max_length=10))


def test_a_text_fills_as_many_rows_as_it_needs(encoder: TextEncoder) -> None:
    rows = encoder.encode_record({"text": "abcdefghijklmnopqrstuvw"})
    assert [len(row.ids) for row in rows] == [10, 10, 6]
    assert all(row.ids[0] == 1 and row.supervised == [False] + [True] * (len(row.ids) - 1) for row in rows)
    assert "".join(chr(number) for row in rows for number in row.ids[1:]) == "abcdefghijklmnopqrstuvw"


def test_a_last_letter_alone_is_left_out(encoder: TextEncoder) -> None:
    assert [len(row.ids) for row in encoder.encode_record({"text": "abcdefghij"})] == [10]


def test_records_of_conversations_are_encoded_as_in_training(encoder: TextEncoder) -> None:
    fields = {"src": "ab", "tgt": "cd", "text": "not this"}
    assert encoder.encode_record(fields) == encoder.conversations.encode_record(fields)


@pytest.mark.parametrize("text", ["", "a", 7])
def test_a_text_without_a_prediction_is_malformed(encoder: TextEncoder, text: Any) -> None:
    with pytest.raises(DataError, match="text: "):
        encoder.encode_record({"text": text})
