"""The two tasks as a user runs them, on a tiny llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.convert.load import load_model
from llm_run.core.engine import generate_task
from llm_run.core.engine.setup import load_text_model
from llm_run.core.errors import DataError, QuantizationError, RefusedError
from llm_run.core.quant import quantize, task
from llm_run.core.quant.layer import quantized_layers
from llm_run.core.quant.score import Comparison
from llm_run.core.registry.facts import Support
from llm_run.core.registry.family import Family

CASES = {
    "gptq": ("gptq", {}, "gptq", "GPTQ, 4 bits, one group a row"),
    "gptq8": ("gptq", {"quant_type": "WINT8"}, "gptq", "GPTQ, 8 bits"),
    "wint8": ("ptq", {"quant_type": "wint8"}, "gptq", "round to nearest, 8 bits"),
    "awq": ("ptq", {"quant_type": "weight_only_int4", "awq": True}, "awq", "AWQ, 4 bits"),
    "w8a8": ("ptq", {}, "compressed-tensors", "W8A8, activations by token"),
    "static": (
        "ptq", {"activation_scale": "per_tensor"}, "compressed-tensors", "W8A8, activations by tensor",
    ),
    "smooth": (
        "ptq", {"shift": True, "smooth": True, "smooth_all_linears": True, "smooth_piecewise_search": True},
        "llm-run", "W8A8 + shift + smooth + piecewise search",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_quantized_directory_says_what_it_is_and_answers(
    run: Any, prepared: Any, case: str, model_directory: Path, tmp_path: Path
) -> None:
    name, options, method, words = CASES[case]
    out = run(name, **options)
    fields, report = (json.loads((out / file).read_text()) for file in ("config.json", "report.json"))
    assert fields["quantization_config"]["quant_method"] == method
    quantization = report["quantization"]
    assert quantization["method"].startswith(words)
    comparison = quantization["comparison"]
    assert comparison["perplexity_before"] > 100 and comparison["tokens"] > 20
    assert abs(comparison["perplexity_increase_percent"]) < 2 and comparison["max_logit_difference"] > 0
    assert len(quantization["layers"]) == 7 * fields["num_hidden_layers"]
    assert all(0 < layer["weight_error"] < 0.2 for layer in quantization["layers"])
    assert quantization["quantized_bytes"] < quantization["bytes_in_16_bits"]
    assert report["round_trip"]["equal_bits"]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"src": "Numbers"}) + "\n")
    generate = prepared(
        "generate", model_name_or_path=out, data_file=asked, output_file=tmp_path / "said.jsonl", max_new_tokens=3
    )
    assert quantized_layers(load_text_model(generate))
    assert generate_task.run(generate) == 0


def test_a_result_that_is_too_bad_is_refused_and_leaves_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rounding may make a random model better by chance: what was measured is made worse.
    measured = Comparison(20, ppl_before=20.0, ppl_after=21.1, max_logit_difference=1.0, same_top_token=0.9)
    monkeypatch.setattr(quantize, "compare", lambda *walks: measured)
    with pytest.raises(QuantizationError, match=r"--max_ppl_increase: .* by 5.50 per cent, more than 5\. Nothing was"):
        run("ptq", quant_type="WINT4", max_ppl_increase=5)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    assert run("ptq", quant_type="WINT4", max_ppl_increase=6).exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gptq_step": 50}, r"--gptq_step: 50 needs 100 samples \(2 each\), and .*quant\.json holds 14\. Give more"),
        ({"quant_group_size": 128}, r"--quant_group_size: 128 does not divide the \d+ inputs of a layer\. Use one of"),
        ({"quant_type": "A8W8"}, r"--quant_type: A8W8 rounds activations, gptq only weights\. Use --task ptq"),
        ({"quant_type": "INT3"}, r"--quant_type: 'INT3' is not a quantization\. Use A8W8, WINT8 or WINT4"),
        ({"gptq_damping": 1.5}, r"--gptq_damping: 1.5 must be from 0 to below 1"),
    ],
)
def test_options_that_cannot_be_kept_are_refused(run: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=text):
        run("gptq", **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shift_all_linears": True}, r"--shift_all_linears: true has no effect without shift"),
        ({"smooth_piecewise_search": True}, r"--smooth_piecewise_search: true has no effect without smooth"),
        ({"quant_type": "WINT8", "smooth": True}, r"--smooth: true changes activations, which weight_only_int8"),
        ({"awq": True}, r"--awq: true is for 4-bit weights, not for a8w8"),
        ({"quant_group_size": 32}, r"--quant_group_size: 32 is for weights alone"),
        (
            {"quant_type": "WINT4", "awq": True, "quantize_lm_head": True},
            r"--quantize_lm_head: true is not done with awq, whose readers expect a head of floats\. .*--task gptq",
        ),
    ],
)
def test_options_without_effect_are_refused(run: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=text):
        run("ptq", **options)


def test_a_quantized_model_is_not_quantized_again(run: Any, tmp_path: Path) -> None:
    out = run("ptq", quant_type="WINT8")
    with pytest.raises(RefusedError, match=r"is quantized already \(gptq\)\. Give the model that it was made from"):
        run("gptq", model_name_or_path=out, output_dir=tmp_path / "again")


def test_an_adapter_has_to_be_merged_first(run: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"holds an adapter and not a whole model\. Merge it first: .*merge_lora"):
        run("gptq", model_name_or_path=tmp_path / "adapter")


def test_bad_calibration_data_are_named(run: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"text": "one"}\n{"txt": "two"}\n')
    with pytest.raises(DataError, match=r"bad\.json:2: has the keys \['txt'\]"):
        run("gptq", dataset_name_or_path=bad)
    bad.write_text('{"text": "only these few words"}\n')
    with pytest.raises(DataError, match=r"has \d+ tokens in all, too few to calibrate with\. Give at least 128"):
        run("gptq", dataset_name_or_path=bad)


def test_an_output_folder_in_use_is_left_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RefusedError, match=r"--output_dir: .* is not an empty folder"):
        run("ptq")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_argument_files_of_the_seed_run_as_they_are(
    model_directory: Path, data: Path, tmp_path: Path, project: Path
) -> None:
    from llm_run.core.config.flags import parse
    from llm_run.core.config.resolve import resolve
    from llm_run.core.request import prepare

    folder = project / "tests" / "core" / "config" / "seed"
    for name in ("ptq", "gptq"):
        words = ["--task", name, "--config", str(folder / f"{name}.json"), "--output_dir", str(tmp_path / name)]
        words += [
            "--model_name_or_path",
            str(model_directory),
            "--dataset_name_or_path",
            str(data),
            f"--{name}_step",
            "1",
        ]
        words += ["--max_length", "64", "--src_length", "32", "--smooth_step", "1"][: 6 if name == "ptq" else 4]
        run, _ = prepare(resolve(parse(words))[0])
        assert task.run(run) == 0
        assert (tmp_path / name / "model.safetensors").exists()


def test_weights_are_rounded_when_a_float_model_is_asked(prepared: Any, model_directory: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text("{}\n")
    for quant_type, bits in (("WINT8", 8), ("WINT4", 4)):
        model = load_text_model(
            prepared("generate", model_name_or_path=model_directory, data_file=asked, quant_type=quant_type)
        )
        assert {layer.quantized.bits for layer in quantized_layers(model).values()} == {bits}
    with pytest.raises(RefusedError, match="--quant_type: A8W8 needs activations that were measured beforehand"):
        prepared("generate", model_name_or_path=model_directory, data_file=asked, quant_type="A8W8")


def test_a_gptq_directory_converts_to_floats(
    run: Any, prepared: Any, llama: Family, tmp_path: Path, logits: Any
) -> None:
    from llm_run.core.convert import task as convert_task

    out = run("gptq")
    convert_task.run(prepared("convert", model_name_or_path=out, output_path=tmp_path / "floats"))
    assert "quantization_config" not in json.loads((tmp_path / "floats" / "config.json").read_text())
    config = llama.card.sizes["tiny"]
    ids = np.arange(3, 23)[None]
    kept = load_model(llama, config, out, keep_integers=True)
    assert np.abs(logits(load_model(llama, config, tmp_path / "floats"), ids) - logits(kept, ids)).max() < 1e-5


def test_a_quantization_that_the_family_lacks_is_refused_before_anything_is_loaded(
    prepared: Any, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text("{}\n")
    declared = Family.capabilities
    monkeypatch.setattr(
        Family,
        "capabilities",
        lambda self, config: {**declared(self, config), "weight_only_int4": Support("no", "why")},
    )
    with pytest.raises(
        RefusedError, match=r"--quant_type: wint4 asks for weight_only_int4, which is not supported: why"
    ):
        prepared("generate", model_name_or_path=model_directory, data_file=asked, quant_type="wint4")
