from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.engine import chat_task
from llm_run.core.engine.decode import generate
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.engine.static.exported import ExportedModel
from llm_run.core.engine.static.graph import write_graph
from llm_run.core.engine.static.manifest import Manifest
from llm_run.core.errors import WeightError

PROMPTS = [[5, 9, 17], [40, 41, 42, 43, 44, 45, 46], [3]]
Ask = Callable[..., str]


def test_greedy_answers_are_those_of_transformers(reference: Any, llama: Any, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "model", write_graph(llama, tmp_path / "model"), 0, {})
    answers = generate(
        ExportedModel(manifest, llama.config), PROMPTS, SamplingSettings(max_new_tokens=20, stop_ids=(2,))
    )
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.ids == reference.answer(prompt, max_new_tokens=20)


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["model.json", "model.pdiparams", "config.json", "tokenizer.json"])
def test_a_changed_file_is_refused_by_name(copy: Path, ask: Ask, name: str) -> None:
    with (copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(WeightError, match=f"{name}: is not what was written"):
        ask(copy, mode="static")


def test_a_missing_file_is_refused_by_name(copy: Path, ask: Ask) -> None:
    (copy / "model.pdiparams").unlink()
    with pytest.raises(WeightError, match=r"model\.pdiparams: is missing"):
        ask(copy, mode="static")


def test_a_graph_that_paddle_cannot_load_is_one_line(llama: Any, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "model.pdiparams").write_bytes(b"")
    with pytest.raises(WeightError, match=r"model\.json: Paddle cannot load the graph") as caught:
        ExportedModel(Manifest(tmp_path, "model", (), 0, {}), llama.config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"graph": "../model"}, "no file name"), ({"inputs": 3}, "int"), ({"prefix_positions": -1}, "no number"),
     ({"graph": "other"}, "has no hash of other.json")],
)  # fmt: skip
def test_a_malformed_report_is_refused(copy: Path, ask: Ask, changes: dict[str, Any], said: str) -> None:
    report = json.loads((copy / "report.json").read_text())
    report["export"] |= changes
    (copy / "report.json").write_text(json.dumps(report))
    with pytest.raises(WeightError, match=f"report.json: .*{said}"):
        ask(copy, mode="static")


def test_a_conversation_with_a_graph_is_that_with_its_model(
    small: Path, exported: Path, run_task: Callable[..., int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said = []
    for model, mode in ((small, "dynamic"), (exported, "static")):
        lines = iter(["The park", "1, 2", "/regenerate"])
        monkeypatch.setattr(chat_task, "_reader", lambda lines=lines: lambda: next(lines, None))
        how = {"decode_strategy": "greedy_search", "max_new_tokens": 8}
        assert run_task("chat", model_name_or_path=model, mode=mode, **how) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) >= 3
