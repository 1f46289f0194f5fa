from __future__ import annotations

import paddle
import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.ops import choices, native, prefer, rms_norm, select


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "absence", lambda: "the C++ kernels were not compiled")
    for op in select.OPS:
        prefer(op, "auto")


def test_without_kernels_all_run_plain_and_one_line_says_so(without_kernels, caplog):
    select._log_once.cache_clear()
    with caplog.at_level("INFO", logger="llm_run.ops"):
        assert {choice.variant for choice in choices()} == {"plain"}
        rms_norm(paddle.ones([2, 4]), paddle.ones([4]), eps=1e-6)
    assert [record.message for record in caplog.records] == ["operators: plain (the C++ kernels were not compiled)"]


def test_insisting_on_kernels_that_are_missing_is_refused(without_kernels):
    with pytest.raises(RefusedError) as refusal:
        prefer("attention", "native")
    assert str(refusal.value) == (
        "ops.attention: 'native' is not supported here: the C++ kernels were not compiled. Use auto or plain."
    )


def test_an_unknown_operator_and_an_unknown_variant_are_refused():
    with pytest.raises(RefusedError, match=r"ops: 'atention' is not an operator\. Operators: attention, norm"):
        prefer("atention", "plain")
    with pytest.raises(RefusedError, match=r"ops\.norm: 'flash' is not a variant\. Use auto, plain, native or gpu\."):
        prefer("norm", "flash")  # type: ignore[arg-type]


def test_a_preference_holds_until_the_next_one():
    prefer("norm", "plain")
    assert select.Choice("norm", "plain", "asked for") in choices()
    prefer("norm", "auto")
    assert next(choice for choice in choices() if choice.op == "norm").reason != "asked for"


def test_tensors_that_the_kernels_cannot_read_run_plain_and_one_line_says_so(kernels, caplog):
    select.decline.cache_clear()
    choices()
    caplog.clear()
    with caplog.at_level("INFO", logger="llm_run.ops"):
        for _ in range(2):
            rms_norm(paddle.ones([2, 4], dtype="float64"), paddle.ones([4], dtype="float64"), eps=1e-6)
    assert [record.message for record in caplog.records] == [
        "norm: plain for some calls (native cannot do them: it takes float32 tensors on CPU)"
    ]
