"""Where a chat template comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_run.core.data.chat import ChatTemplate, load_chat_template
from llm_run.core.errors import DataError

DEFAULT = ChatTemplate(jinja="default", stop=("<end>",))


def test_none_turns_the_template_off(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("a")
    assert load_chat_template("none", tmp_path, DEFAULT) is None


def test_a_model_without_template_gets_its_familys(tmp_path: Path) -> None:
    assert load_chat_template(None, tmp_path, DEFAULT) is DEFAULT
    assert load_chat_template(None, None, None) is None
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "x"}')
    assert load_chat_template(None, tmp_path, DEFAULT) is DEFAULT


def test_a_jinja_file_wins_over_the_tokenizers_settings(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "from settings"}))
    found = load_chat_template(None, tmp_path, DEFAULT)
    assert found == ChatTemplate(jinja="from settings", stop=("<end>",))
    (tmp_path / "chat_template.jinja").write_text("from jinja")
    found = load_chat_template(None, tmp_path, None)
    assert found == ChatTemplate(jinja="from jinja")


def test_a_named_list_gives_its_default(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    found = load_chat_template(None, tmp_path, None)
    assert found is not None and found.jinja == "plain"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named[:1]}))
    with pytest.raises(
        DataError, match=r"chat_template: the list has no template named 'default', only \['tool_use'\]\."
    ):
        load_chat_template(None, tmp_path, None)


def test_a_chosen_file_or_folder_wins(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "chat_template.json").write_text(json.dumps({"chat_template": "in a folder"}))
    for choice, text in (("mine.jinja", "mine"), ("folder", "in a folder")):
        found = load_chat_template(str(tmp_path / choice), None, DEFAULT)
        assert found is not None and found.jinja == text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jinja", b"{% if %}", r"x\.jinja: the chat template is not valid Jinja: line 1: "),
        ("x.jinja", b"\xff", r"x\.jinja: is not UTF-8 text: "),
        ("x.json", b"{", r"x\.json: is not valid JSON: "),
        ("x.json", b"[]", r"x\.json: must hold a JSON object\."),
        ("x.json", b'{"chat_template": 5}', r"x\.json: chat_template: must be text or a list of named texts\."),
        ("x.json", b"{}", r"x\.json holds no chat template \(chat_template\.jinja, tokenizer_config\.json"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_chat_template(str(tmp_path / name), None, None)


def test_a_choice_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"--chat_template: .*gone does not exist\. Give a file, a folder that holds one, or"
    ):
        load_chat_template(str(tmp_path / "gone"), None, None)


def test_importing_chat_templates_does_not_import_jinja() -> None:
    import subprocess
    import sys

    code = (
        "import sys, llm_run.core.data.chat, llm_run.core.data.tokenizers; "
        "print(sorted({'jinja2', 'numpy', 'paddle'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
