"""Checkpoints that one process and two ranks of each layout have saved, merged, for every installed family."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.cli import main
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import parameters
from llm_run.core.registry.manager import installed, load_family
from llm_run.core.trainer.randomness import seed_all

SEED = 3
"""That of ``merge_program.py``."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, ranks: Callable[..., Any]) -> Path:
    """Folders by family and layout, each with ``checkpoint-1`` (``merge_program.py``)."""
    folder = tmp_path_factory.mktemp("merge")
    ranks(2, Path(__file__).parent / "merge_program.py", folder)
    return folder


@pytest.mark.parametrize("name", installed().families)
def test_checkpoints_of_every_layout_become_the_model_again(saved: Path, name: str, tmp_path: Path) -> None:
    family = load_family(name)
    config = family.card.sizes["tiny"]
    seed_all(SEED)
    expected = parameters(family.build_model(config))
    layouts = sorted(path.name for path in (saved / name).iterdir())
    assert layouts == ["one", "pp2", "stage3", "tp2"]
    for layout in layouts:
        folder = saved / name / layout
        # A pretraining run that was given no tokenizer says so in its run.json.
        told = {name: {"value": None} for name in ("tokenizer_name_or_path", "model_name_or_path", "chat_template")}
        (folder / "run.json").write_text(json.dumps({"options": told}))
        words = ["--model_name_or_path", str(folder / "checkpoint-1"), "--output_path", str(tmp_path / layout)]
        assert main(["--task", "merge_shards", *words]) == 0
        merged = parameters(load_model(family, config, tmp_path / layout))
        assert merged.keys() == expected.keys()
        for each, parameter in expected.items():
            assert merged[each].numpy().tobytes() == parameter.numpy().tobytes(), f"{layout}: {each}"
        report = json.loads((tmp_path / layout / "report.json").read_text())
        files = {path.name for path in (folder / "checkpoint-1").glob("model-*.safetensors")}
        assert report["merged"] == {"step": 1, "from": sorted(files)}
        assert len(files) == (1 if layout == "one" else 2)
        shutil.rmtree(tmp_path / layout)
