"""Prefix tuning through the command's own path: trained, gone on from, and used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.tokenizer import load_tokenizer
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import load_family
from llm_run.core.request import prepare
from llm_run.core.tasks import load_task
from llm_run.core.trainer.metrics import read_metrics
from llm_run.core.trainer.randomness import seed_all

PREFIX = 4
Run = Callable[..., int]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records, and a tiny random model whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("prefix")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    (folder / "tokenizer").mkdir()
    made.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (folder / "data").mkdir()
    for name, first in (("train", 0), ("dev", 50)):
        lines = [json.dumps({"src": f"{k}+{k}", "tgt": f"={2 * k}"}) for k in range(first, first + 8)]
        (folder / "data" / f"{name}.json").write_text("\n".join(lines))
    family = load_family("llama")
    config = family.card.sizes["tiny"]
    seed_all(1)
    tokenizer = load_tokenizer(family, config, folder / "tokenizer")
    save_model_directory(family.build_model(config), family, config, tokenizer, folder / "base")
    return folder


@pytest.fixture
def tune(place: Path, tmp_path: Path) -> Run:
    """Tune a prefix, as the command does, into a folder of ``tmp_path``."""

    def run(name: str, **options: object) -> int:
        defaults = {
            "model_name_or_path": place / "base", "dataset_name_or_path": place / "data", "num_prefix_tokens": PREFIX,
            "output_dir": tmp_path / name, "max_length": 32, "src_length": 16, "max_steps": 4, "logging_steps": 1,
            "per_device_train_batch_size": 4, "save_steps": 2, "learning_rate": 0.1, "lr_scheduler_type": "constant",
        }  # fmt: skip
        return command("prefix_tuning", **(defaults | options))

    return run


def command(task: str, **options: object) -> int:
    words = ["--family", "llama", "--task", task]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    request, _ = prepare(resolve(parse(words))[0])
    return load_task(task)(request)


def saved(folder: Path) -> np.ndarray:
    tensors = load_file(folder / "adapter_model.safetensors")
    assert list(tensors) == ["prompt_embeddings"]
    return tensors["prompt_embeddings"]


@pytest.mark.parametrize("projection", ["false", "true"], ids=["plain", "projected"])
def test_a_prefix_is_trained_and_goes_on_to_the_bit(tune: Run, place: Path, tmp_path: Path, projection: str) -> None:
    for name, stops in (("whole", [4]), ("cut", [2, 4])):
        for steps in stops:
            assert tune(name, max_steps=steps, prefix_projection=projection) == 0
    assert np.array_equal(saved(tmp_path / "whole"), saved(tmp_path / "cut"))
    assert not (tmp_path / "whole" / "model.safetensors").exists()
    held = sum(file.stat().st_size for file in (tmp_path / "cut" / "checkpoint-4").rglob("*.safetensors"))
    assert held < 0.5 * (place / "base" / "model.safetensors").stat().st_size
    losses = [row["loss"] for row in read_metrics(tmp_path / "cut") if "loss" in row]
    assert len(losses) == 4 and losses[-1] < losses[0]


@pytest.mark.parametrize(
    "options",
    [
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"recompute": "true"},
        {"recompute": "true", "recompute_granularity": "core_attn"},
    ],
    ids=["accumulated", "recomputed", "scores recomputed"],
)
def test_accumulation_and_recomputation_do_not_change_the_prefix(
    tune: Run, tmp_path: Path, options: dict[str, object]
) -> None:
    assert tune("plain") == tune("other", **options) == 0
    assert np.abs(saved(tmp_path / "plain") - saved(tmp_path / "other")).max() < 1e-4


def test_packed_records_train_the_prefix(tune: Run, tmp_path: Path) -> None:
    assert tune("packed", zero_padding="true", max_steps=6, do_eval="true") == 0
    rows = read_metrics(tmp_path / "packed")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] and "eval_loss" in rows[-1]


def test_answers_begin_with_the_prefix(tune: Run, place: Path, tmp_path: Path) -> None:
    """Batched or one by one, they are the same, and others than without a prefix."""
    assert tune("prefix", max_steps=20) == 0
    (tmp_path / "ask.jsonl").write_text('{"src": "3+3"}\n{"src": "17+17"}\n{"src": "5+5"}\n')
    answers = []
    for number, options in enumerate(({"batch_size": 1}, {"batch_size": 3}, {})):
        output = tmp_path / f"{number}.jsonl"
        ask = {"data_file": tmp_path / "ask.jsonl", "output_file": output, "decode_strategy": "greedy_search"}
        if options:
            ask |= {"prefix_path": tmp_path / "prefix"} | options
        assert command("generate", model_name_or_path=place / "base", max_new_tokens=6, src_length=16, **ask) == 0
        answers.append([json.loads(line)["output"] for line in output.read_text().splitlines()])
    assert answers[0] == answers[1] != answers[2]


def test_a_prefix_that_leaves_no_positions_is_refused(tune: Run) -> None:
    positions = load_family("llama").card.sizes["tiny"].max_positions
    with pytest.raises(RefusedError, match=f"--num_prefix_tokens: {positions} takes all but 0 of the model's"):
        tune("none", num_prefix_tokens=positions)
    with pytest.raises(RefusedError, match=f"--max_length: 32 is longer than the {31} positions"):
        tune("none", num_prefix_tokens=positions - 31)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_prefix_tokens": 0}, "--num_prefix_tokens: 0 must be 1 or more"),
        ({"prefix_projection_hidden_size": 8}, "--prefix_projection_hidden_size: 8 has no effect without"),
    ],
)
def test_wrong_options_are_refused(tune: Run, options: dict[str, object], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        tune("none", **options)
