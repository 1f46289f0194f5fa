"""The two tasks as a user runs them, on a tiny llama."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.convert.load import load_model
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.tokenizer import load_tokenizer
from llm_run.core.engine import generate_task
from llm_run.core.engine.setup import load_text_model
from llm_run.core.errors import DataError, QuantizationError, RefusedError
from llm_run.core.quant import quantize, task
from llm_run.core.quant.layer import quantized_layers
from llm_run.core.quant.score import Comparison
from llm_run.core.registry.family import Family

TEXTS = [
    "The quantization of a model rounds its weights to integers, layer after layer.",
    "Numbers: 1, 2, 3, 10, 100; words, words, and some more words, until the row is full.",
    "Once upon a time there was a small matrix that wanted to be smaller still.",
]


@pytest.fixture(scope="session")
def model_directory(llama: Family, byte_level_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a tokenizer."""
    paddle.seed(1)
    config = llama.card.sizes["tiny"]
    model, tokenizer = llama.build_model(config), load_tokenizer(llama, config, byte_level_files)
    directory = tmp_path_factory.mktemp("model") / "model"
    save_model_directory(model, llama, config, tokenizer, directory)
    return directory


@pytest.fixture(scope="session")
def byte_level_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level ``tokenizer.json``."""
    import tokenizers

    directory = tmp_path_factory.mktemp("tokenizer")
    built = tokenizers.Tokenizer(tokenizers.models.BPE())
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    built.train_from_iterator(TEXTS, trainer)
    built.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return directory


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibration records of several kinds, and evaluation records."""
    folder = tmp_path_factory.mktemp("data")
    records: list[dict[str, Any]] = [{"text": text * 3} for text in TEXTS]
    records += [{"src": text, "tgt": "It is so."} for text in TEXTS]
    records += [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]} for text in TEXTS
    ]
    (folder / "quant.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "dev.json").write_text(json.dumps({"src": TEXTS[0], "tgt": TEXTS[1]}) + "\n")
    return folder


@pytest.fixture
def run(model_directory: Path, data: Path, tmp_path: Path, prepared: Callable[..., Any]) -> Callable[..., Path]:
    """Return a function that runs a task and returns its output folder."""

    def act(name: str, **options: Any) -> Path:
        settings = {
            "model_name_or_path": model_directory,
            "dataset_name_or_path": data,
            "output_dir": tmp_path / "out",
            "per_device_train_batch_size": 2,
            "max_length": 64,
            "src_length": 32,
            **options,
        }
        assert task.run(prepared(name, **settings)) == 0
        return Path(settings["output_dir"])

    return act


@pytest.fixture
def prepared() -> Callable[..., Any]:
    """Return a function from a task and its options to the ``Run`` that the task is handed."""
    from llm_run.core.config.flags import parse
    from llm_run.core.config.resolve import resolve
    from llm_run.core.request import prepare

    def make(name: str, **options: Any) -> Any:
        words = ["--task", name]
        for option, value in options.items():
            words += [f"--{option}", str(value)]
        return prepare(resolve(parse(words))[0])[0]

    return make


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


@pytest.fixture(scope="session")
def tied_directory(llama: Family, byte_level_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose head is its embedding."""
    paddle.seed(2)
    config = llama.card.sizes["tiny-tied"]
    model, tokenizer = llama.build_model(config), load_tokenizer(llama, config, byte_level_files)
    directory = tmp_path_factory.mktemp("tied") / "model"
    save_model_directory(model, llama, config, tokenizer, directory)
    return directory


@pytest.mark.parametrize(
    ("name", "options"),
    [("gptq", {}), ("ptq", {"quant_type": "WINT8"}), ("ptq", {"smooth": True, "smooth_all_linears": True})],
    ids=["gptq", "wint8", "w8a8"],
)
def test_a_model_whose_head_is_its_embedding_gets_a_quantized_head_of_its_own(
    run: Any, prepared: Any, tied_directory: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    out = run(name, model_name_or_path=tied_directory, quantize_lm_head=True, **options)
    fields, report = (json.loads((out / file).read_text()) for file in ("config.json", "report.json"))
    assert not fields["tie_word_embeddings"]
    about = fields["quantization_config"]
    assert about["lm_head"] if "lm_head" in about else about["ignore"] == []
    assert report["quantization"]["layers"][-1]["name"] == "lm_head" and report["round_trip"]["equal_bits"]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"src": "Numbers"}) + "\n")
    generate = prepared("generate", model_name_or_path=out, data_file=asked, output_file=tmp_path / "said.jsonl")
    assert "lm_head" in quantized_layers(load_text_model(generate))


def test_a_head_is_rounded_when_a_float_model_is_asked(
    prepared: Any, model_directory: Path, tied_directory: Path, tmp_path: Path, logits: Any
) -> None:
    asked, ids = tmp_path / "asked.jsonl", np.arange(3, 23)[None]
    asked.write_text("{}\n")
    for directory in (model_directory, tied_directory):
        how = {"model_name_or_path": directory, "data_file": asked, "quant_type": "WINT8"}
        without, model = (
            load_text_model(prepared("generate", **how, quantize_lm_head=with_head)) for with_head in (False, True)
        )
        assert "lm_head" in quantized_layers(model) and "lm_head" not in quantized_layers(without)
        difference = np.abs(logits(model, ids) - logits(without, ids)).max()
        assert 0 < difference < 0.02 * np.abs(logits(without, ids)).max()


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
    from llm_run.core.registry import capability

    asked = tmp_path / "asked.jsonl"
    asked.write_text("{}\n")
    monkeypatch.setattr(capability, "NOT_IN_THIS_VERSION", frozenset({"weight_only_int4"}))
    with pytest.raises(RefusedError, match=r"--quant_type: wint4 asks for weight_only_int4, which is not in this"):
        prepared("generate", model_name_or_path=model_directory, data_file=asked, quant_type="wint4")
