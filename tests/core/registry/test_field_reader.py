"""Reading a config.json: aliases, defaults, and every problem at once."""

from __future__ import annotations

from typing import Any

import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.registry.field_reader import FieldReader


def refusal(read: FieldReader) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        read.check()
    return str(caught.value).splitlines()


def test_the_first_name_that_is_present_counts_and_null_is_absent() -> None:
    read = FieldReader({"n_layer": 3, "hidden": 8, "width": 9, "num_heads": None})
    assert read.integer("num_layers", "n_layer") == 3
    assert read.integer("hidden", "width") == 8
    assert read.integer("num_heads", default=5) == 5
    assert read.number("eps", default=1e-6) == 1e-6
    assert read.flag("tied", default=True) is True
    read.check()


def test_every_problem_is_reported_at_once_by_name() -> None:
    read = FieldReader({"layers": "3", "eps": -1, "tied": "yes"})
    read.integer("layers")
    read.integer("vocab_size")
    read.number("eps")
    read.flag("tied", default=False)
    read.refuse("kv", 3, "does not divide heads (4)")
    assert refusal(read) == [
        "config.json: layers: '3' is not a whole number of at least 1. Mend the file.",
        "config.json: vocab_size: is missing. Add it: without it the shape of the model is not known.",
        "config.json: eps: -1 is not a number above zero. Mend the file.",
        "config.json: tied: 'yes' is neither true nor false. Mend the file.",
        "config.json: kv: 3 does not divide heads (4). Mend the file.",
    ]


@pytest.mark.parametrize("value", [0, -1, True, 1.5, float("nan"), [], "7"])
def test_no_count_is_taken_from_what_is_none(value: Any) -> None:
    read = FieldReader({"layers": value})
    assert read.integer("layers") == 1
    assert len(refusal(read)) == 1


@pytest.mark.parametrize("value", [0, True, float("inf"), float("nan"), "1e-6"])
def test_no_number_is_taken_from_what_is_none(value: Any) -> None:
    read = FieldReader({"eps": value})
    assert read.number("eps") == 1.0
    assert len(refusal(read)) == 1


@pytest.mark.parametrize("value", [1, -0.1, True, float("nan"), "0.1"])
def test_no_share_is_taken_from_what_is_none(value: Any) -> None:
    read = FieldReader({"dropout": value})
    assert read.share("dropout") == 0.0
    assert refusal(read) == [f"config.json: dropout: {value!r} is not a share from 0 up to 1. Mend the file."]


def test_a_share_may_be_nothing() -> None:
    read = FieldReader({"dropout": 0, "other": 0.25})
    assert (read.share("dropout"), read.share("other"), read.share("absent", default=0.1)) == (0.0, 0.25, 0.1)
    read.check()


def test_a_field_with_one_supported_value_refuses_others_and_says_why() -> None:
    read = FieldReader({"act": "relu", "bias": False})
    read.only("act", allowed=("silu",), remedy="Only SwiGLU is built.")
    read.only("bias", allowed=(False,), remedy="")
    read.only("absent", allowed=(1,), remedy="")
    assert refusal(read) == ["config.json: act: 'relu' is not supported here. Only SwiGLU is built."]


def test_a_token_id_lies_in_the_vocabulary() -> None:
    read = FieldReader({"pad_token_id": 0, "eos_token_id": 9})
    assert read.token_id("pad_token_id", vocab_size=9) == 0
    assert read.token_id("bos_token_id", vocab_size=9, default=3) == 3
    read.token_id("eos_token_id", vocab_size=9)
    assert refusal(read) == [
        "config.json: eos_token_id: 9 is not below vocab_size (9). Write the tokenizer's id there.",
    ]


def test_null_is_not_there() -> None:
    read = FieldReader({"head_dim": None, "layers": 3})
    assert not read.has("head_dim")
    assert read.has("layers")
