"""What the user says about fused operators reaches the table that chooses them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_run.core.config.groups import ModelOptions
from llm_run.core.launch.kernels import apply_preferences
from llm_run.core.ops import native
from llm_run.core.ops.select import choices, prefer


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    for op in ("attention", "norm", "rotary"):
        prefer(op, "auto")


def variants() -> dict[str, str]:
    return {choice.op: choice.variant for choice in choices()}


def test_false_turns_a_fused_operator_off() -> None:
    apply_preferences(ModelOptions(use_flash_attention=False, use_fused_rms_norm=False, use_fused_rope=False))
    assert {variants()[op] for op in ("attention", "norm", "rotary")} == {"plain"}


def test_saying_nothing_changes_nothing() -> None:
    before = variants()
    apply_preferences(ModelOptions())
    assert variants() == before


def test_true_without_a_fused_operator_is_a_warning_and_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "absence", lambda: "there is no compiler")
    apply_preferences(ModelOptions(use_flash_attention=True))
    assert (
        "use_flash_attention: is not supported here: there is no compiler; the plain operator runs instead"
        in caplog.text
    )
