from __future__ import annotations

import pytest

from llm_run.core.serve.errors import ApiError
from llm_run.core.serve.fields import MAX_DEPTH, Fields, parse_body


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"text"', b"{", b"\xff{}", b'{"a": NaN}', b'{"a": -Infinity}',
     b'{"a": ["\\ud83d"]}', b'{"\\udc00": 1}',
     b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a": ' + b'{"a":' * 40 + b"1" + b"}" * 41],
)  # fmt: skip
def test_what_is_no_shallow_json_object_is_refused(body):
    with pytest.raises(ApiError) as refused:
        parse_body(body)
    assert refused.value.status == 400


def test_nesting_is_allowed_to_its_limit():
    depth = MAX_DEPTH - 1
    assert parse_body(b'{"a": ' + b"[" * depth + b"]" * depth + b"}")
    with pytest.raises(ApiError, match="levels deep"):
        parse_body(b'{"a": ' + b"[" * (depth + 1) + b"]" * (depth + 1) + b"}")


@pytest.mark.parametrize("value", [True, "1", [], float("nan"), float("inf"), 2.1, -0.1])
def test_a_number_out_of_bounds_or_of_another_type_is_refused_by_name(value):
    with pytest.raises(ApiError, match=r"^temperature: ") as refused:
        Fields({"temperature": value}).number("temperature", 1.0, low=0.0, high=2.0)
    assert refused.value.body()["error"]["param"] == "temperature"


@pytest.mark.parametrize("value", [True, "1", 1.5, 0, 65])
def test_a_whole_number_out_of_bounds_or_of_another_type_is_refused(value):
    with pytest.raises(ApiError, match=r"^n: "):
        Fields({"n": value}).integer("n", 1, low=1, high=64)


def test_null_counts_as_left_out():
    fields = Fields({"n": None, "t": None, "f": None, "s": None, "x": None})
    assert fields.integer("n", 3, low=1, high=9) == 3
    assert fields.number("t", 0.5, low=0, high=1) == 0.5
    assert fields.flag("f", True) is True
    assert fields.strings("s", most=4, longest=9) == ()
    assert fields.text("x", "d", longest=9) == "d"


@pytest.mark.parametrize("value", ["", ["a", ""], ["a"] * 5, ["x" * 10], [1], {"a": 1}])
def test_lists_of_texts_are_bounded(value):
    with pytest.raises(ApiError, match=r"^stop: "):
        Fields({"stop": value}).strings("stop", most=4, longest=9)


def test_a_refusal_never_repeats_the_value():
    with pytest.raises(ApiError) as refused:
        Fields({"model": "secret\n" * 1000}).text("model", "", longest=256)
    assert "secret" not in refused.value.message
