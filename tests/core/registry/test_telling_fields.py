"""Two families that answer for the same names are told apart by the keys of a ``config.json``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.registry import manager


def found(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], **telling: tuple[str, ...]) -> str:
    """Look for the family of a ``config.json`` among families that share a name, with these telling fields."""
    families = {
        name: SimpleNamespace(
            card=SimpleNamespace(
                name=name, architectures=("Twin",), model_types=("twin",), gguf_architectures=(), telling_fields=keys
            )
        )
        for name, keys in telling.items()
    }
    monkeypatch.setattr(manager, "installed", lambda: SimpleNamespace(families=families))
    monkeypatch.setattr(manager, "load_family", families.get)
    return manager.find_family({"architectures": ["Twin"], **fields}).card.name


def test_the_family_whose_keys_are_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, {"old": 1}, first=("old",), second=("new",)) == "first"
    assert found(monkeypatch, {"new": 1}, first=("old",), second=("new",)) == "second"


def test_one_family_that_states_its_keys_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, {"old": 1}, first=("old",), second=()) == "first"
    assert found(monkeypatch, {}, first=("old",), second=()) == "second"


def test_a_single_answer_needs_no_telling_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, {}, first=("old",)) == "first"


def test_what_the_keys_do_not_settle_is_asked_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for fields in ({}, {"old": 1, "new": 1}):
        with pytest.raises(RefusedError) as refusal:
            found(monkeypatch, fields, first=("old",), second=("new",))
        assert str(refusal.value) == "config.json: 'Twin' is claimed by first and second. Say which with --family."


def test_a_gguf_header_is_of_the_family_that_llama_cpp_has(monkeypatch: pytest.MonkeyPatch) -> None:
    families = {
        name: SimpleNamespace(
            card=SimpleNamespace(
                name=name, architectures=(), model_types=("twin",), gguf_architectures=gguf, telling_fields=(name,)
            )
        )
        for name, gguf in {"first": (), "second": ("twin",)}.items()
    }
    monkeypatch.setattr(manager, "installed", lambda: SimpleNamespace(families=families))
    monkeypatch.setattr(manager, "load_family", families.get)
    assert manager.find_family({"model_type": "twin"}).card.name == "second"
    assert manager.find_family({"model_type": "twin", "first": 1}).card.name == "first"
