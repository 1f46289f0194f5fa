from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_run.core.cli import main
from llm_run.core.config.files import read_config
from llm_run.core.configs.ready_made import RECIPES, find_ready_made, names, ready_made
from llm_run.core.errors import RefusedError
from llm_run.core.tasks import TASKS


def test_every_task_has_a_recipe_and_every_recipe_a_task() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(TASKS)


@pytest.mark.parametrize("task", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_a_recipe_says_what_it_is_for_and_names_its_task(task: str) -> None:
    text = (RECIPES / f"{task}.yaml").read_text()
    assert text.startswith("# ") and yaml.safe_load(text)["task"] == task


def test_a_familys_line_takes_the_place_of_the_recipes_and_new_ones_follow() -> None:
    recipe = (RECIPES / "pretrain.yaml").read_text().replace("FAMILY", "llama").splitlines()
    own = ready_made("llama/pretrain").splitlines()
    place = recipe.index("model_size: tiny")
    assert own[place : place + 2][0].startswith("# Touvron et al. 2023")
    assert own[place + 1] == "model_size: llama-2-7b"
    assert own[-1] == "adam_epsilon: 1.0e-5"
    assert "max_length: 4096" in own and "max_length: 2048" not in own
    assert yaml.safe_load("\n".join(own))["weight_decay"] == 0.1


def test_a_name_stands_for_a_file_unless_there_is_such_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config("llama/sft")["learning_rate"] == 3.0e-5
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "sft").write_text("seed: 7\n")
    assert read_config("llama/sft") == {"seed": 7}
    for name in ("llama", "llama/nothing", "nobody/sft", "llama/tasks/sft", "../llama/sft"):
        assert find_ready_made(name) is None


def test_what_a_family_cannot_do_has_no_configuration() -> None:
    assert "glm/chat" not in names("glm") and "llama/chat" in names("llama")
    with pytest.raises(RefusedError, match="configuration: 'glm/chat' does not exist"):
        ready_made("glm/chat")


def test_a_misspelt_name_is_told_its_nearest() -> None:
    with pytest.raises(RefusedError) as caught:
        ready_made("llama/sfx")
    assert str(caught.value) == (
        "configuration: 'llama/sfx' does not exist. Did you mean llama/sft? llm-run configs ls prints all."
    )


def test_a_plugin_that_is_no_package_uses_the_recipes_as_they_are(site: Any) -> None:
    site.install("quokka-plugin", "quokka")
    done = site.run("configs", "ls")
    assert done.status == 0 and "quokka/sft" in done.out and "quokka/lora" not in done.out
    assert "family: quokka" in site.run("configs", "cat", "quokka/sft").out


def test_a_copy_is_a_file_of_ones_own_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "cp", "llama/sft"]) == 0
    assert (tmp_path / "llama-sft.yaml").read_text() == ready_made("llama/sft")
    assert main(["configs", "cp", "llama/sft", "mine.yaml"]) == 0
    assert main(["configs", "cp", "llama/lora", "mine.yaml"]) == 2
    assert (tmp_path / "mine.yaml").read_text() == ready_made("llama/sft")
    said = capsys.readouterr()
    assert "llama-sft.yaml: change the paths in it, then llm-run --config llama-sft.yaml" in said.out
    assert said.err == "llm-run: configs cp: mine.yaml exists already. Name another file.\n"


def test_what_is_printed_is_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "cat", "qwen/dpo"]) == 0
    assert capsys.readouterr().out == ready_made("qwen/dpo")


@pytest.mark.parametrize("words", [["rm", "llama/sft"], ["cat"], ["cp", "a", "b", "c"], ["llama/sft"]])
def test_other_words_are_refused_with_the_three_forms(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", *words]) == 2
    said = capsys.readouterr().err
    assert "is not understood. Use llm-run configs ls, llm-run configs cat NAME" in said
