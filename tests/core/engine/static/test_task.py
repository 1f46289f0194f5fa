from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.adapters.files import collect, new_adapter, save_adapter
from llm_run.core.adapters.lora import lora_layers
from llm_run.core.adapters.prefix import apply_prefix
from llm_run.core.adapters.prefix_files import save_prefix
from llm_run.core.adapters.prefix_settings import PrefixSettings
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import fill, load_model
from llm_run.core.convert.verify import sha256
from llm_run.core.engine.static import task
from llm_run.core.engine.static.graph import write_graph
from llm_run.core.engine.static.manifest import Manifest, taken_positions
from llm_run.core.errors import RefusedError, WeightError
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.layer import InputQuantization, quantized_layers
from llm_run.core.quant.quantize import quantize_weights
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family

Ask = Callable[..., str]
Run = Callable[..., int]


def network(directory: Path) -> tuple[Family, Any]:
    family = load_family("llama")
    config = family.read_config(read_fields(directory))
    return family, load_model(family, config, directory)


def test_a_directory_holds_all_that_answering_needs_and_says_how_well_it_was_made(exported: Path) -> None:
    report = json.loads((exported / "report.json").read_text())
    facts = report["export"]
    assert facts["max_logit_difference"] < facts["bound"] == 1e-5
    assert facts["inputs"] == ["input_ids", "positions", "attention_mask", "keys", "values"]
    names = {path.name for path in exported.iterdir()}
    assert names == {*report["files"], "report.json"}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} < names
    assert {"model.json", "model.pdiparams"} < names
    assert all(sha256(exported / name) == file["sha256"] for name, file in report["files"].items())


def test_what_is_written_is_json_and_raw_tensors(exported: Path) -> None:
    assert json.loads((exported / "model.json").read_text())["base_code"]["magic"] == "pir"
    # Each tensor begins with the version of its format, 0; a pickle begins with its protocol, 0x80.
    assert (exported / "model.pdiparams").read_bytes()[:4] == bytes(4)


def test_a_graph_answers_as_its_model_and_needs_no_python_of_it(
    small: Path, exported: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(small)
    monkeypatch.setattr(Family, "build_model", lambda *_: pytest.fail("a network was built"))
    for size in (1, 4):
        assert ask(exported, mode="static", batch_size=size) == expected
    assert len({json.loads(line)["output"] for line in expected.splitlines()}) == 4


@pytest.mark.parametrize(
    "options", [{"decode_strategy": "beam_search", "num_beams": 3}, {"decode_strategy": "sampling"}]
)
def test_every_way_of_choosing_tokens_is_that_of_the_model(
    small: Path, exported: Path, ask: Ask, options: dict[str, Any]
) -> None:
    assert ask(exported, mode="static", batch_size=2, **options) == ask(small, **options)


def test_an_adapter_is_merged_into_the_graph(small: Path, run_task: Run, ask: Ask, tmp_path: Path) -> None:
    family, model = network(small)
    settings = LoraSettings(rank=2, alpha=64)
    new_adapter(model, family, settings)
    random = np.random.default_rng(0)
    for layer in lora_layers(model).values():
        for parameter in layer.parameters():
            if not parameter.stop_gradient:
                fill(parameter, random.normal(0, 0.2, parameter.shape).astype(np.float32))
    save_adapter(collect(model), family, model.config, settings, tmp_path / "lora", base=str(small))
    out, adapter = tmp_path / "exported", {"lora_path": tmp_path / "lora"}
    assert run_task("export", model_name_or_path=small, output_path=out, **adapter) == 0
    assert ask(out, mode="static") == ask(small, **adapter) != ask(small)


def test_a_prefix_is_part_of_the_graph_and_takes_its_positions(
    small: Path, run_task: Run, ask: Ask, tmp_path: Path
) -> None:
    _, model = network(small)
    apply_prefix(model, PrefixSettings(num_tokens=6), seed=3)
    assert model.prefix is not None
    for parameter in model.prefix.parameters():
        fill(parameter, np.random.default_rng(1).normal(0, 1.0, parameter.shape).astype(np.float32))
    save_prefix(model, tmp_path / "prefix", base=str(small))
    out, prefix = tmp_path / "exported", {"prefix_path": tmp_path / "prefix"}
    assert run_task("export", model_name_or_path=small, output_path=out, **prefix) == 0
    assert ask(out, mode="static", batch_size=4) == ask(small, **prefix) != ask(small)
    assert taken_positions(str(out)) == 6


@pytest.mark.parametrize(("quant_type", "share"), [("WINT8", 0.75), ("WINT4", 0.6)])
def test_integers_stay_integers_in_the_file(
    small: Path, exported: Path, run_task: Run, ask: Ask, tmp_path: Path, quant_type: str, share: float
) -> None:
    out, how = tmp_path / "exported", {"quant_type": quant_type, "quant_group_size": -1}
    assert run_task("export", model_name_or_path=small, output_path=out, **how) == 0
    assert (out / "model.pdiparams").stat().st_size < share * (exported / "model.pdiparams").stat().st_size
    assert ask(out, mode="static", batch_size=4).count("\n") == 4


@pytest.mark.parametrize("scale", [None, 0.05], ids=["by token", "by tensor"])
def test_rounded_activations_are_rounded_alike_in_the_graph(small: Path, tmp_path: Path, scale: float | None) -> None:
    family, model = network(small)
    groups = family.quantizable_layers(model.config)
    assert groups is not None
    quantize_weights(model, groups, GridSpec(8, -1))
    for layer in quantized_layers(model).values():
        layer.inputs = InputQuantization(scale)
    manifest = Manifest(tmp_path, "model", write_graph(model, tmp_path / "model"), 0, {})
    assert task.compare(model, manifest) < task.BOUND


def test_a_graph_that_is_too_far_from_its_model_is_refused_and_leaves_nothing(
    small: Path, run_task: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "BOUND", 1e-12)
    with pytest.raises(WeightError, match=r"logits of the graph differ .* Nothing is kept"):
        run_task("export", model_name_or_path=small, output_path=tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_in_use_is_refused(small: Path, run_task: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(RefusedError, match=r"--output_path: .* is not an empty folder"):
        run_task("export", model_name_or_path=small, output_path=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_files_are_named_as_asked(small: Path, run_task: Run, ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    assert run_task("export", model_name_or_path=small, output_path=out, model_prefix="llama") == 0
    assert (out / "llama.json").is_file() and (out / "llama.pdiparams").is_file()
    assert ask(out, mode="static").count("\n") == 4
