"""Which family and which model a request means, and what is adapted to the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import read_options, resolve
from llm_run.core.errors import RefusedError
from llm_run.core.request import prepare
from llm_run.core.run import Run

SHAPE = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip
SFT = "--task sft --dataset_name_or_path d --output_dir o "


def prepared(command: str) -> tuple[Run, list[str]]:
    return prepare(resolve(parse(command.split()))[0])


def refused(command: str) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        prepared(command)
    return str(caught.value).splitlines()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"model_type": "llama"}))
    return tmp_path


def test_the_model_directory_says_which_family_it_is(model: Path) -> None:
    run, notes = prepared(f"{SFT} --model_name_or_path {model} --max_length 64 --src_length 32")
    assert run.family.card.name == run.config.family == "llama"
    assert (run.model_config.hidden_size, run.model_config.num_kv_heads) == (32, 2)
    assert notes == []


def test_a_size_of_the_family_is_a_model(tmp_path: Path) -> None:
    run, _ = prepared(f"{SFT} --family qwen --model_size tiny --tokenizer_name_or_path {tmp_path}")
    assert run.model_config == run.family.card.sizes["tiny"]


def test_a_default_length_gives_way_to_the_model(model: Path) -> None:
    run, notes = prepared(f"{SFT} --model_name_or_path {model}")
    assert (run.config.data.max_length, run.config.data.src_length) == (128, 64)
    assert notes == ["max_length: 128, the longest sequence of this model", "src_length: 64, half of max_length"]


def test_trained_weights_are_refused_a_longer_sequence(model: Path) -> None:
    assert refused(f"{SFT} --model_name_or_path {model} --max_length 256 --src_length 64") == [
        "--max_length: 256 is longer than the 128 positions that the model was made for. Use at most 128."
    ]


def test_a_new_model_takes_the_length_of_the_user(model: Path) -> None:
    run, notes = prepared(f"--task pretrain --model_name_or_path {model} --input_dir d --output_dir o --max_length 256")
    assert run.config.data.max_length == 256
    assert notes == []


def test_the_data_task_needs_only_a_tokenizer(model: Path, tmp_path: Path) -> None:
    words = "--task data --input_path i --output_prefix p --tokenizer_name_or_path "
    assert prepared(words + str(model))[0].family.card.name == "llama"
    bare = tmp_path / "tokenizer"
    bare.mkdir()
    run, _ = prepared(f"{words}{bare} --family qwen")
    assert run.model_config == run.family.card.sizes["tiny"]
    assert refused(words + str(bare))[0].startswith("--family: is needed: no model directory says it. Installed: ")


def test_a_size_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    words = f"{SFT} --family llama --tokenizer_name_or_path {tmp_path} --model_size "
    assert refused(words + "tinny") == ["--model_size: 'tinny' is not a variant of llama. Did you mean 'tiny'?"]
    assert refused(words + "zzz")[0].startswith("--model_size: 'zzz' is not a variant of llama. Variants: tiny, ")


def test_a_misspelt_key_and_family_hide_no_other_problem() -> None:
    arguments = parse("--task pretrain --family lama --learning_rat -3 --tensor_parallel_degree 3 --seed x".split())
    config, _, problems = read_options(arguments)
    with pytest.raises(RefusedError) as caught:
        prepare(config, problems)
    said = str(caught.value).splitlines()
    assert said[:2] == [
        "--learning_rat: is not an option. Did you mean learning_rate?",
        "--seed: 'x' is not a whole number.",
    ]
    assert [line.split(":")[0] for line in said[2:]] == [
        "--input_dir", "--model_name_or_path", "--learning_rate", "--output_dir", "--family",
        "--tensor_parallel_degree", "--tensor_parallel_degree", "--nproc_per_node",
    ]  # fmt: skip
    assert any(line.startswith("--family: 'lama' is not installed. Did you mean 'llama'?") for line in said)


def test_an_option_that_is_misspelt_or_lacks_its_value_is_not_said_to_be_missing() -> None:
    arguments = parse("--task sft --family llama --model_siz tiny --dataset_name_or_pat d --output_dir".split())
    config, _, problems = read_options(arguments)
    with pytest.raises(RefusedError) as caught:
        prepare(config, problems)
    assert [problem.key for problem in caught.value.problems] == [
        "--model_siz", "--dataset_name_or_pat", "--output_dir", "--tokenizer_name_or_path",
    ]  # fmt: skip


def test_a_tokenizer_that_does_not_exist_is_refused() -> None:
    assert refused(f"{SFT} --family llama --model_size tiny --tokenizer_name_or_path /nowhere") == [
        "--tokenizer_name_or_path: /nowhere does not exist. Give a folder that holds a tokenizer."
    ]


def test_do_eval_with_eval_steps_evaluates_at_these_steps(model: Path) -> None:
    words = f"--task pretrain --model_name_or_path {model} --input_dir d --output_dir o --max_length 64 --do_eval"
    run, notes = prepared(f"{words} --eval_steps 3")
    assert run.config.training.evaluation_strategy == "steps"
    assert notes == ["evaluation_strategy: steps, because do_eval and eval_steps are given"]
    for more in ("", " --eval_steps 3 --evaluation_strategy no", " --eval_steps 3 --do_train false"):
        run, notes = prepared(words + more)
        assert (run.config.training.evaluation_strategy, notes) == ("no", [])


def test_an_unknown_task_does_not_hide_an_unknown_family() -> None:
    config, _, problems = read_options(parse("--task stf --family lama".split()))
    with pytest.raises(RefusedError) as caught:
        prepare(config, problems)
    assert [problem.key for problem in caught.value.problems] == ["--task", "--family"]


def test_problems_of_options_come_with_those_of_the_model() -> None:
    said = refused(f"{SFT} --model_name_or_path /nowhere --fp16 --bf16")
    assert said == [
        "--fp16: true excludes bf16. Choose one of them.",
        "--model_name_or_path: /nowhere does not exist. Models are folders or files on this machine.",
    ]
