"""The command as a user meets it: exit statuses, one-line errors, and no Paddle where none is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_run.core.cli import main
from llm_run.core.registry.manager import installed
from llm_run.core.tasks import TASKS

HEAVY = ("paddle", "numpy", "matplotlib", "tokenizers", "sentencepiece", "tiktoken", "jinja2", "rich", "gguf", "torch")


def run(*words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    program = [sys.executable, "-c", code] if code else [sys.executable, "-m", "llm_run.core"]
    return subprocess.run([*program, *words], capture_output=True, text=True, check=False)


LOADED = """
import sys
from llm_run.core.cli import main
status = main(sys.argv[1:])
print(status, *sorted(set(sys.modules) & set({heavy!r})), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "status", "allowed"),
    [
        (["--help"], 0, set()),
        (["--task", "sft", "--help"], 0, set()),
        (["--version"], 0, set()),
        (["--task", "stf"], 2, set()),
        (["--task", "sft", "--learning_rat", "3"], 2, set()),
        (["--task", "sft", "--show_config"], 0, set()),
        (["families"], 0, {"numpy"}),
        (["matrix"], 0, {"numpy"}),
        (["--task", "sft", "--family", "nobody"], 2, {"numpy"}),
        (["--task", "sft", "--family", "llama", "--model_size", "tiny", "--tensor_parallel_degree", "3"], 2, {"numpy"}),
    ],
)
def test_nothing_heavy_is_imported_to_answer(words: list[str], status: int, allowed: set[str]) -> None:
    done = run(*words, code=LOADED.format(heavy=HEAVY))
    said = done.stderr.splitlines()[-1].split()
    assert said[0] == str(status)
    assert set(said[1:]) <= allowed


def test_no_words_show_the_help() -> None:
    done = run()
    assert done.returncode == 0
    assert done.stdout.startswith("usage: llm-run --task TASK ")
    assert done.stdout == run("--help").stdout


def test_help_names_the_installed_families_and_fits_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], *(["--task", task, "--help"] for task in ("sft", "pretrain", "data", "chat", "convert"))):
        assert main(words) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 105
    main(["--help"])
    said = capsys.readouterr().out
    assert installed().families and all(name in said for name in installed().families)


def test_help_on_a_task_shows_its_options_with_their_defaults_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--task", "sft", "--help"])
    said = capsys.readouterr().out
    assert "--learning_rate X" in said
    assert "[5e-05]" in said
    assert "One of linear, cosine, constant" in " ".join(said.split())
    assert "--top_p" not in said
    assert "--input_dir" not in said


@pytest.mark.parametrize("command", ["matrix", "families", "plan", "env"])
def test_help_on_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: llm-run {command}")


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("llm-run 0.")
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["matri"],
            "command: 'matri' is not known. Did you mean 'matrix'? Commands: matrix, families, configs, plan, env; "
            "a task is started with --task.",
        ),
        (["sft", "--config", "a.json"],
         "command: 'sft' is not known. Did you mean '--task sft'? Commands: matrix, families, configs, plan, env; "
         "a task is started with --task."),
        (["a.json"], "command: 'a.json' is not known. Did you mean '--config a.json'? Commands: matrix, families, "
                     "configs, plan, env; a task is started with --task."),
        (["matrix", "--format", "xml"], "--format: 'xml' is not one of table, json, markdown."),
        (["families", "--family", "llama"], "--family: is not an option of llm-run families."),
        (["env", "--threads", "2"], "--threads: is not an option of llm-run env."),
        (["--task", "spt", "--help"], f"--task: 'spt' is not a task. Did you mean 'sft'? Tasks: {', '.join(TASKS)}."),
        (["--task", "chat", "--model_name_or_path", "/nowhere"],
         "--model_name_or_path: /nowhere does not exist. Models are folders or files on this machine."),
        (["--task", "convert", "--family", "llama", "--output_path", "o"],
         "--model_name_or_path: is needed by --task convert. See llm-run --task convert --help."),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_on_standard_error_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err == f"llm-run: {said}\n"
    assert captured.out == ""


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        (tmp_path / "missing" / "a.bin").open("wb")
        return 0

    monkeypatch.setattr("llm_run.core.commands.versions.print_version", refuse)
    assert main(["--version"]) == 1
    assert capsys.readouterr().err == f"llm-run: {tmp_path}/missing/a.bin: no such file or directory.\n"


def test_traceback_shows_where_an_error_was_raised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", "stf", "--traceback"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):")
    assert said.endswith(f"llm-run: --task: 'stf' is not a task. Did you mean 'sft'? Tasks: {', '.join(TASKS)}.\n")


def test_help_on_a_task_of_another_version_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: place for name, place in TASKS.items() if name != "dpo"}
    monkeypatch.setattr("llm_run.core.commands.help.TASKS", known)
    assert main(["--task", "dpo", "--help"]) == 2
    said = f"llm-run: --task: 'dpo' is not in this version. Tasks: {', '.join(known)}.\n"
    assert capsys.readouterr().err == said


def test_all_problems_of_options_family_and_plan_come_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--task sft --family llama --model_size tiny --fp16 --bf16 --tensor_parallel_degree 3 --src_length 9999"
    assert main(words.split()) == 2
    keys = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    assert keys == [
        "--dataset_name_or_path",
        "--tokenizer_name_or_path",
        "--fp16",
        "--output_dir",
        "--src_length",
        "--tensor_parallel_degree",
        "--tensor_parallel_degree",
        "--nproc_per_node",
    ]


def test_show_config_says_where_each_value_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"learning_rate": "3e-5", "skip_memory_metrics": True}))
    assert main(["--task", "sft", "--config", str(path), "--seed", "7", "--show_config"]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"learning_rate 3e-05 {path}" in said
    assert "seed 7 flag" in said
    assert "weight_decay 0.0 default" in said
    assert not [line for line in said if line.startswith("top_p")]
    assert "skip_memory_metrics: ignored: memory is logged with every step" in " ".join(said)


def test_the_matrix_as_json_holds_support_reason_and_proof(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    cell = printed["llama"]["tiny"]
    assert cell["sft"]["support"] == "yes"
    assert cell["sft"]["proof"].startswith("tests/")
    assert printed["glm"]["tiny"]["chat"]["support"] == "no" and printed["glm"]["tiny"]["chat"]["reason"]
    assert cell["bfloat16"]["support"] == "untested"


def test_the_matrix_as_a_table_fits_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line for line in lines if line.startswith("  sft ")).count("✅") >= 2


def test_the_matrix_as_markdown_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--format", "markdown", "--family", "llama"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["|  | llama |", "|---|---|"]
    assert "| Tasks: `sft` | ✅ |" in lines


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "llm_run.core", "matrix"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""
