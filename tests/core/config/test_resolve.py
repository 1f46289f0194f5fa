"""Files and flags become one configuration; every mistake is reported, with the nearest name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.option import DECODING
from llm_run.core.config.resolve import resolve
from llm_run.core.config.schema import GROUPS, aliases, options
from llm_run.core.config.seed_keys import MODES, RETIRED
from llm_run.core.errors import RefusedError
from llm_run.core.run import RunConfig
from llm_run.core.tasks import TASKS

SEED = Path(__file__).parent / "seed"


def resolved(command: str) -> tuple[RunConfig, list[str]]:
    return resolve(parse(command.split()))


def refused(command: str) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        resolved(command)
    return str(caught.value).splitlines()


def write(path: Path, **values: Any) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_defaults_then_files_in_order_then_flags(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", learning_rate=1e-3, max_steps=5, seed=1)
    second = write(tmp_path / "b.json", max_steps=6, seed=2)
    config, _ = resolved(f"--task sft --config {first} {second} --seed 3")
    training = config.training
    assert (training.weight_decay, training.learning_rate, training.max_steps, training.seed) == (0.0, 1e-3, 6, 3)
    names = ("weight_decay", "learning_rate", "max_steps", "seed")
    assert [config.origins[name] for name in names] == ["default", str(first), str(second), "flag"]


def test_every_option_has_an_origin() -> None:
    config, _ = resolved("--task sft")
    names = {field.name for group in GROUPS.values() for field in dataclasses.fields(group)}
    assert set(config.origins) == names == set(options())


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    yaml = tmp_path / "a.yaml"
    yaml.write_text("learning_rate: 3e-5\nrecompute: yes\nevaluation_strategy: no\nstop: [a, b]\noutput_dir:\n")
    as_json = write(tmp_path / "a.json", learning_rate="3e-5", recompute=1, evaluation_strategy="no", output_dir=None)
    for path in (yaml, as_json):
        training = resolved(f"--task sft --config {path}")[0].training
        assert training.learning_rate == 3e-5
        assert training.recompute is True
        assert training.evaluation_strategy == "no"
        assert training.output_dir is None


def test_family_and_task_may_stand_in_a_file_and_flags_win(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", family="llama", task="pretrain")
    config, _ = resolved(f"--config {path}")
    assert (config.family, config.task) == ("llama", "pretrain")
    config, _ = resolved(f"--config {path} --family qwen --task sft")
    assert (config.family, config.task) == ("qwen", "sft")


def test_flags_come_in_every_usual_form() -> None:
    config, _ = resolved(
        "--task=sft --recompute --no_save_rehearsal --max-steps=7 --seed 1 --seed 2 --learning_rate 1e-4"
    )
    assert config.training.recompute is True
    assert config.training.save_rehearsal is False
    assert (config.training.max_steps, config.training.seed, config.training.learning_rate) == (7, 2, 1e-4)
    config, _ = resolved("--task chat --stop a b --stop c --temperature -0")
    assert config.decoding.stop == ("a", "b", "c")
    config, _ = resolve(parse(["--task", "sft", "--max_steps", "-1", "--output_dir", "with space"]))
    assert (config.training.max_steps, config.training.output_dir) == (-1, "with space")


def test_a_value_that_may_be_none_can_be_none() -> None:
    assert resolved("--task sft --eval_steps none")[0].training.eval_steps is None
    assert resolved("--task sft --chat_template none")[0].model.chat_template == "none"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--learning_rat 1", "--learning_rat: is not an option. Did you mean learning_rate?"),
        ("--zzz 1", "--zzz: is not an option. See llm-run --task sft --help."),
        ("--max_steps many", "--max_steps: 'many' is not a whole number."),
        ("--max_steps 1.5", "--max_steps: '1.5' is not a whole number."),
        ("--learning_rate nan", "--learning_rate: 'nan' is not a number."),
        ("--recompute maybe", "--recompute: 'maybe' is not true or false."),
        ("--max_steps", "--max_steps: lacks its value."),
        ("--max_steps 1 2", "--max_steps: ['1', '2'] is not a whole number."),
        (
            "--output_dir a b",
            "--output_dir: ['a', 'b'] is not one text (put quotes around words that belong together).",
        ),
        (
            "--lr_scheduler_type cosin",
            "--lr_scheduler_type: 'cosin' is not one of linear, cosine, constant, constant_with_warmup, polynomial.",
        ),
        ("--data_file x", "--data_file: is not read by --task sft. It is for generate, evaluate."),
        ("--lora_rank 8", "--lora_rank: is not read by --task sft. It is for lora, dpo."),
        ("--model_prefix x", "--model_prefix: is not read by --task sft. It is for export."),
        (
            "--task gptq --sharding stage2",
            "--sharding: is not read by --task gptq. It is for pretrain, sft, lora, prefix_tuning, dpo. Several "
            "processes share --task gptq by --tensor_parallel_degree.",
        ),
        ("--lora", "--lora: true is a task of its own. Use --task lora, or set it to false."),
        ("--do_qat true", "--do_qat: true is not in this version. Set it to false."),
        ("--optim adafactor", "--optim: 'adafactor' is not supported. Leave it out: the optimizer is AdamW."),
        ("--no_recompute true", "--no_recompute: is not an option. Did you mean recompute?"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(flags: str, said: str) -> None:
    assert refused(f"--task sft {flags}") == [said]


def test_all_problems_are_reported_at_once_with_their_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", learning_rat=1, max_steps="x")
    assert refused(f"--task stf --config {path} --seed y") == [
        f"--task: 'stf' is not a task. Did you mean 'sft'? Tasks: {', '.join(TASKS)}.",
        f"{path}: learning_rat: is not an option. Did you mean learning_rate?",
        f"{path}: max_steps: 'x' is not a whole number.",
        "--seed: 'y' is not a whole number.",
    ]


def without(monkeypatch: pytest.MonkeyPatch, task: str) -> str:
    """Take a task out of this version; return the others as a message lists them."""
    known = {name: place for name, place in TASKS.items() if name != task}
    monkeypatch.setattr("llm_run.core.config.resolve.TASKS", known)
    return ", ".join(known)


def test_a_task_is_needed_and_one_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("--seed 1") == [f"--task: is missing. It is one of {', '.join(TASKS)}."]
    known = without(monkeypatch, "dpo")
    assert refused("--task dpo --dpo_beta 8") == [f"--task: 'dpo' is not in this version. Tasks: {known}."]


def test_a_key_of_another_task_is_noted_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", top_k=1, top_p=0.5, max_steps=3, quant_type="a8w8")
    config, notes = resolved(f"--task sft --config {path}")
    assert config.training.max_steps == 3
    assert notes == [f"{path}: top_k, top_p, quant_type: not read by --task sft"]


def test_an_alias_is_accepted_with_a_note(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", intokens=True)
    config, notes = resolved(f"--task sft --config {path} --max_seq_length 99")
    assert config.data.zero_padding is True
    assert config.data.max_length == 99
    assert notes == [f"{path}: intokens: is called zero_padding here", "--max_seq_length: is called max_length here"]


def test_two_names_of_one_option_in_one_file(tmp_path: Path) -> None:
    config, _ = resolved(f"--task sft --config {write(tmp_path / 'a.json', intokens=True, zero_padding=False)}")
    assert config.data.zero_padding is True
    path = write(tmp_path / "b.json", max_length=5, max_seq_length=6)
    assert refused(f"--task sft --config {path}") == [
        f"{path}: max_seq_length: is another name of max_length, and the file gives both 5 and 6. "
        "Leave one of them out."
    ]


@pytest.mark.parametrize("task", DECODING)
def test_max_length_of_the_seeds_predictor_is_max_new_tokens(task: str) -> None:
    config, notes = resolved(f"--task {task} --max_length 12")
    assert config.decoding.max_new_tokens == 12
    assert notes == [f"--max_length: is read as max_new_tokens by --task {task}"]
    config, notes = resolved(f"--task {task} --max_new_tokens 7 --max_length 12")
    assert config.decoding.max_new_tokens == 7
    assert notes == [f"--max_length: not read by --task {task}, since max_new_tokens is given"]


@pytest.mark.parametrize(
    ("task", "name", "expected"),
    [
        ("sft", "sft", {"zero_padding": True, "fp16": True, "tensor_parallel_degree": 4, "learning_rate": 3e-5}),
        (
            "pretrain",
            "pretrain_tp2sd4",
            {"max_length": 4096, "sharding": "stage2", "continue_training": True, "bf16": True},
        ),
        ("sft", "sft_pp", {"learning_rate": 3e-5, "bf16": True, "pipeline_parallel_degree": 2, "src_length": 256}),
    ],
)
def test_an_argument_file_of_the_seed_works_unchanged(task: str, name: str, expected: dict[str, Any]) -> None:
    path = SEED / f"{name}.json"
    config, notes = resolved(f"--task {task} --config {path}")
    groups = [getattr(config, group) for group in GROUPS]
    values = {field.name: getattr(group, field.name) for group in groups for field in dataclasses.fields(group)}
    assert {key: values[key] for key in expected} == expected
    noted = " ".join(notes)
    for key in json.loads(path.read_text()):
        assert config.origins.get(key) == str(path) or key in noted


@pytest.mark.parametrize(
    ("task", "name"), [("lora", "lora"), ("ptq", "ptq"), ("gptq", "gptq"), ("prefix_tuning", "prefix")]
)
def test_an_argument_file_for_a_task_of_another_version_is_refused_for_that_alone(
    monkeypatch: pytest.MonkeyPatch, task: str, name: str
) -> None:
    known = without(monkeypatch, task)
    said = refused(f"--task {task} --config {SEED / name}.json")
    assert said == [f"--task: '{task}' is not in this version. Tasks: {known}."]


def test_a_mode_of_the_seed_in_a_file_names_its_task() -> None:
    path = SEED / "lora.json"
    assert refused(f"--task sft --config {path}") == [
        f"{path}: lora: true is a task of its own. Use --task lora, or set it to false."
    ]


def test_no_key_has_two_meanings() -> None:
    tables = [set(options()), set(aliases()), set(RETIRED), set(MODES)]
    for number, names in enumerate(tables):
        for other in tables[number + 1 :]:
            assert not names & other


def test_every_note_on_a_retired_key_is_a_sentence_without_a_full_stop() -> None:
    for name, entry in RETIRED.items():
        assert entry.note and not entry.note.endswith("."), name


def test_tasks_of_options_exist() -> None:
    known = {"*", *TASKS}
    for option in options().values():
        assert set(option.tasks) <= known, option.name
        assert option.help and not option.help.endswith("."), option.name
