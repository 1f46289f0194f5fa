"""PaddleNLP's chat_template.json: literal text with placeholders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.data.chat import ChatTemplate, load_chat_template
from llm_run.core.data.sandbox import render_template
from llm_run.core.errors import DataError

QWEN = {
    "system": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>",
    "conversation": [
        "\n<|im_start|>user\n{{user}}<|im_end|>\n<|im_start|>assistant\n",
        "{{bot}}<|im_end|>",
    ],
    "query": "\n<|im_start|>user\n{{query}}<|im_end|>\n<|im_start|>assistant\n",
}
CHATGLM2 = {
    "conversation": ["[Round {{index+1}}]\n\n问：{{user}}\n\n答：", "{{bot}}\n\n"],
    "query": "[Round {{index + 1}}]\n\n问：{{query}}\n\n答：",
}


def compiled(tmp_path: Path, fields: dict[str, Any]) -> ChatTemplate:
    """Load the template as a user would."""
    (tmp_path / "chat_template.json").write_text(json.dumps(fields))
    found = load_chat_template(None, tmp_path, None)
    assert found is not None
    return found


def render(template: ChatTemplate, *turns: str, awaits: bool) -> str:
    """Render user and assistant turns in alternation."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
    return render_template(template.jinja, {"messages": messages, "add_generation_prompt": awaits})


def test_qwen_renders_as_paddlenlp_does(tmp_path: Path) -> None:
    template = compiled(tmp_path, QWEN)
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    assert render(template, "hi", awaits=True) == start + "hi<|im_end|>\n<|im_start|>assistant\n"
    assert render(template, "hi", "yes", awaits=False) == start + "hi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    assert template.stop == ("<|im_end|>",)


def test_rounds_are_numbered(tmp_path: Path) -> None:
    template = compiled(tmp_path, CHATGLM2)
    text = render(template, "甲", "乙", "丙", awaits=True)
    assert text == "[Round 1]\n\n问：甲\n\n答：乙\n\n[Round 2]\n\n问：丙\n\n答："
    assert template.stop == ()


def test_braces_and_statements_of_a_user_are_text(tmp_path: Path) -> None:
    hostile = "{{bot}} {% raise %} {{ 7 * 7 }} {{query}}"
    assert hostile in render(compiled(tmp_path, QWEN), hostile, awaits=True)


def test_braces_quotes_and_white_space_of_the_template_are_literal(tmp_path: Path) -> None:
    fields = {"conversation": ['  {% "x" %}\\n \' {{user}}}} \t', "{{bot}} </s>"], "system": "{# a #}\n\n"}
    template = compiled(tmp_path, fields)
    assert render(template, "u", "b", awaits=False) == '{# a #}\n\n  {% "x" %}\\n \' u}} \tb </s>'
    assert template.stop == ("</s>",)


def test_the_number_of_rounds_is_known(tmp_path: Path) -> None:
    template = compiled(tmp_path, {"query": "{{index}}/{{length}}: {{query}}"})
    assert render(template, "a", "b", "c", awaits=True) == "0/2: ab1/2: c"


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_role_that_the_format_cannot_say_is_refused(tmp_path: Path, role: str) -> None:
    template = compiled(tmp_path, QWEN)
    with pytest.raises(DataError, match=r"its turns are user and assistant only, and its system text is fixed"):
        render_template(template.jinja, {"messages": [{"role": role, "content": "x"}], "add_generation_prompt": True})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"query": "{{user.name}}"},
            r"\{\{user\.name\}\} is not a placeholder in '\{\{user\.name\}\}'\. Known there: \{\{user\}\}",
        ),
        ({"query": "q", "conversation": ["{{bot}}", "x"]}, r"\{\{bot\}\} is not a placeholder in '\{\{bot\}\}'\."),
        (
            {"query": "q", "greeting": "x"},
            r"'greeting' is not a key of a chat template\. Known: system, conversation, query\.",
        ),
        ({"conversation": ["one"]}, r"conversation: must be two texts"),
        ({"query": 5}, r"conversation: must be two texts|system and query must be texts"),
        ({"query": "q", "system": 5}, r"system and query must be texts\."),
    ],
)
def test_a_malformed_template_is_named(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        compiled(tmp_path, fields)
