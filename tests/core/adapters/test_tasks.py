"""LoRA through the command's own path: trained, gone on from, merged, and used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.errors import RefusedError, WeightError
from llm_run.core.request import prepare
from llm_run.core.tasks import load_task
from llm_run.core.trainer.metrics import read_metrics

Run = Callable[..., int]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records and a tiny trained model, its tokenizer included."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("lora")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = [f"{a} and {b} make {a + b}." for a in range(40) for b in range(40)]
    made.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    (folder / "tokenizer").mkdir()
    made.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (folder / "data").mkdir()
    for name, first in (("train", 0), ("dev", 100)):
        lines = [json.dumps({"src": f"{k} and {k}", "tgt": f"make {2 * k}"}) for k in range(first, first + 12)]
        (folder / "data" / f"{name}.json").write_text("\n".join(lines))
    options = {"model_size": "tiny", "tokenizer_name_or_path": folder / "tokenizer", "output_dir": folder / "base"}
    assert run("sft", **training(folder), **options) == 0
    return folder


def training(folder: Path, **more: object) -> dict[str, object]:
    return {
        "dataset_name_or_path": folder / "data", "max_length": 32, "src_length": 16, "max_steps": 4, "logging_steps": 1,
        "per_device_train_batch_size": 4, "save_steps": 2, "learning_rate": 1e-2, **more,
    }  # fmt: skip


def run(task: str, **options: object) -> int:
    words = ["--family", "llama", "--task", task]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    request, _ = prepare(resolve(parse(words))[0])
    return load_task(task)(request)


def test_an_adapter_is_trained_and_goes_on_to_the_bit(place: Path, tmp_path: Path) -> None:
    base = {"model_name_or_path": place / "base", "lora_rank": 4, "lora_dropout": 0.1, "loraplus_lr_ratio": 4}
    for name, stops in (("whole", [4]), ("cut", [2, 4])):
        for steps in stops:
            options = training(place, output_dir=tmp_path / name, max_steps=steps, lr_scheduler_type="constant")
            assert run("lora", **base, **options) == 0
    whole, cut = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and len(whole) == 56
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    assert not (tmp_path / "whole" / "model.safetensors").exists()
    losses = [row["loss"] for row in read_metrics(tmp_path / "cut") if "loss" in row]
    assert len(losses) == 4
    saved = sum(file.stat().st_size for file in (tmp_path / "cut" / "checkpoint-4").rglob("*.safetensors"))
    assert saved < 0.8 * (place / "base" / "model.safetensors").stat().st_size


def test_an_adapter_of_a_model_of_codes_goes_on_to_the_bit_and_names_the_model(place: Path, tmp_path: Path) -> None:
    base = {"model_name_or_path": place / "base", "lora_rank": 4, "weight_quantize_algo": "nf4"}
    for name, stops in (("whole", [4]), ("cut", [2, 4])):
        for steps in stops:
            options = training(place, output_dir=tmp_path / name, max_steps=steps, lr_scheduler_type="constant")
            assert run("lora", **base, **options) == 0
    whole, cut = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    losses = [row["loss"] for row in read_metrics(tmp_path / "whole") if "loss" in row]
    assert losses[-1] < losses[0]
    fields = json.loads((tmp_path / "whole" / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == str(place / "base")
    with pytest.raises(RefusedError, match="weight_quantize_algo"):  # another model than the checkpoint was made with
        more = training(place, output_dir=tmp_path / "cut", max_steps=5, lr_scheduler_type="constant")
        run("lora", **(base | {"weight_quantize_algo": "weight_only_int8"}), **more)


@pytest.mark.parametrize("options", [{"recompute": "true"}, {"gradient_accumulation_steps": 4, "bs": 1}])
def test_recomputation_and_accumulation_do_not_change_the_adapter(
    options: dict[str, object], place: Path, tmp_path: Path
) -> None:
    base = {"model_name_or_path": place / "base", "lora_rank": 2}
    assert run("lora", **base, **training(place, output_dir=tmp_path / "plain")) == 0
    changed = {"per_device_train_batch_size": options.pop("bs")} if "bs" in options else {}
    assert run("lora", **base, **training(place, output_dir=tmp_path / "other", **options, **changed)) == 0
    plain, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "other"))
    for name, values in plain.items():
        np.testing.assert_allclose(other[name], values, atol=2e-5, rtol=1e-4)


def test_a_merged_model_is_a_directory_of_its_own_and_answers_as_model_and_adapter(place: Path, tmp_path: Path) -> None:
    base = {"model_name_or_path": place / "base"}
    assert run("lora", **base, **training(place, output_dir=tmp_path / "adapter")) == 0
    assert run("merge_lora", **base, lora_path=tmp_path / "adapter", output_path=tmp_path / "merged") == 0
    report = json.loads((tmp_path / "merged" / "report.json").read_text())
    assert report["adapter"]["layers"] == 28
    assert report["adapter"]["max_logit_difference"] < 1e-4
    assert (tmp_path / "merged" / "tokenizer.json").exists()
    (tmp_path / "ask.jsonl").write_text('{"src": "3 and 3"}\n{"src": "7 and 7"}\n')
    answers = []
    for name, options in (("two", {**base, "lora_path": tmp_path / "adapter"}),
                          ("one", {"model_name_or_path": tmp_path / "merged"})):  # fmt: skip
        output = tmp_path / f"{name}.jsonl"
        ask = {"data_file": tmp_path / "ask.jsonl", "output_file": output, "decode_strategy": "greedy_search"}
        assert run("generate", max_new_tokens=8, src_length=16, **ask, **options) == 0
        answers.append([json.loads(line)["output"] for line in output.read_text().splitlines()])
    assert answers[0] == answers[1]


def test_a_merge_that_changes_the_logits_is_refused_and_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_run.core.adapters import merge_task

    base = {"model_name_or_path": place / "base"}
    assert run("lora", **base, **training(place, output_dir=tmp_path / "adapter")) == 0
    monkeypatch.setitem(merge_task.BOUNDS, "float32", 1e-12)
    with pytest.raises(WeightError, match=r"logits differ .* Nothing is kept"):
        run("merge_lora", **base, lora_path=tmp_path / "adapter", output_path=tmp_path / "merged")
    assert not (tmp_path / "merged").exists() and not list(tmp_path.glob(".merged*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"lora_rank": 0}, "--lora_rank: 0 must be 1 or more"), ({"lora_dropout": 1}, "--lora_dropout"),
     ({"pissa": "true", "use_dora": "true"}, "--pissa: true excludes use_dora"),
     ({"lora_path": "nowhere"}, "--lora_path: nowhere is no folder"),
     ({"lora_target_modules": "nothing"}, "'nothing' is no linear layer"), ({"lora_target_modules": "("}, "regular")],
)  # fmt: skip
def test_what_makes_no_adapter_is_refused(options: dict[str, object], said: str, place: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=said.replace("(", r"\(")):
        run("lora", model_name_or_path=place / "base", **training(place, output_dir=tmp_path / "x"), **options)


def test_an_adapter_of_another_shape_is_refused(place: Path, tmp_path: Path) -> None:
    assert run("lora", model_name_or_path=place / "base", **training(place, output_dir=tmp_path / "adapter")) == 0
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    from safetensors.numpy import save_file

    tensors = load_file(path)
    save_file({name: np.ones((values.shape[0] + 1, values.shape[1]), np.float32) if "lora_B" in name else values
               for name, values in tensors.items()}, path)  # fmt: skip
    with pytest.raises(WeightError, match="adapter"):
        run("merge_lora", model_name_or_path=place / "base", lora_path=tmp_path / "adapter",
            output_path=tmp_path / "merged")  # fmt: skip
