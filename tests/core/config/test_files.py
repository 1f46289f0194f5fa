"""Configuration files: JSON and YAML, and every way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_run.core.config.files import read_config_file
from llm_run.core.errors import RefusedError


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("a.json", '{"a": 1, "b": [true, null]}', {"a": 1, "b": [True, None]}),
        ("a.json", '\ufeff{"a": "ü"}', {"a": "ü"}),
        ("a.yaml", "a: 1\nb: [true, null]\n", {"a": 1, "b": [True, None]}),
        ("a.yml", "# nothing set\n", {}),
        ("a.conf", "a: x y z", {"a": "x y z"}),
    ],
)
def test_a_file_is_read(tmp_path: Path, name: str, text: str, values: dict[str, object]) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read_config_file(path) == values


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"a": 1,}', "is not JSON: "),
        ("a.json", "[1]", "does not hold keys and values at its top level."),
        ("a.json", '{"a": 1, "a": 2}', "gives the key 'a' twice."),
        ("a.yaml", "a: 1\na: 2\n", "gives the key 'a' twice."),
        ("a.yaml", "a: [1\n", "is not YAML: "),
        ("a.yaml", "just words", "does not hold keys and values at its top level."),
        ("a.yaml", "1: 2", "has a key that is not a text: 1."),
        ("a.yaml", "? [1]\n: 2", "is not YAML: found unhashable key"),
        (
            "a.yaml",
            "a: !!python/object/apply:os.getcwd []",
            "is not YAML: could not determine a constructor for the tag",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_its_name(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RefusedError) as caught:
        read_config_file(path)
    assert str(caught.value).startswith(f"--config: {path} {said}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"--config: .*gone.json cannot be read: No such file or directory"):
        read_config_file(tmp_path / "gone.json")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RefusedError, match="cannot be read: it is not text in UTF-8"):
        read_config_file(path)
