from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.engine.static.checks import check_export
from llm_run.core.engine.static.manifest import taken_positions


def said(words: str) -> list[str]:
    return [str(problem) for problem in check_export(resolve(parse(words.split()))[0])]


def generate(**options: Any) -> str:
    words = "--task generate --family llama --data_file x"
    return words + "".join(f" --{name} {value}" for name, value in options.items())


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "report.json").write_text('{"export": {}}')
    return tmp_path


def test_nothing_is_wrong_with_a_graph_in_static_mode(graph: Path) -> None:
    assert said(generate(model_name_or_path=graph, mode="static")) == []


def test_a_graph_is_refused_where_weights_are_needed(graph: Path) -> None:
    for task in ("generate", "evaluate", "convert", "sft", "export"):
        (problem,) = said(f"--task {task} --family llama --model_name_or_path {graph}")
        assert problem.startswith(f"--model_name_or_path: {graph} holds an exported graph and no weights. Use --task")


def test_static_mode_asks_for_an_exported_directory(tmp_path: Path) -> None:
    (problem,) = said(generate(model_name_or_path=tmp_path, mode="static"))
    assert problem == (
        f"--model_name_or_path: {tmp_path} holds no exported graph, which --mode static runs. "
        "Make one with --task export, or leave --mode out."
    )
    (problem,) = said(generate(model_size="tiny", mode="static"))
    assert problem == "--mode: static needs an exported directory. Give it with --model_name_or_path."


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("lora_path", "a", "is part of an exported graph, and cannot be added to it. Give it to --task export."),
        ("quant_type", "WINT8", "is part of an exported graph, and cannot be added to it. Give it to --task export."),
        ("num_draft_tokens", "4", "is not done with an exported graph. Leave it out, or leave --mode out."),
        ("cachekv_int8", "True", "is not done with an exported graph. Leave it out, or leave --mode out."),
        ("activations_int8", "True", "is not done with an exported graph. Leave it out, or leave --mode out."),
        ("use_fused_rope", "True", "has no effect on an exported graph, which holds its own operators. Leave it out."),
    ],
)
def test_what_a_graph_cannot_be_given_is_refused(graph: Path, option: str, value: str, reason: str) -> None:
    assert said(generate(model_name_or_path=graph, mode="static", **{option: value})) == [
        f"--{option}: {value} {reason}"
    ]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden"])
def test_the_name_of_the_graph_is_the_name_of_a_file(name: str) -> None:
    (problem,) = said(f"--task export --family llama --model_name_or_path m --output_path o --model_prefix {name}")
    assert problem == f"--model_prefix: '{name}' is no file name. Leave it out, or use letters."


@pytest.mark.parametrize("report", [None, "[]", "{", "{}"])
def test_a_directory_without_a_graph_takes_no_positions(tmp_path: Path, report: str | None) -> None:
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    assert taken_positions(str(tmp_path)) == taken_positions(None) == 0
