"""What a plan predicts, against numbers from elsewhere and against a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.estimate.duration import tokens_per_step
from llm_run.core.estimate.parameters import count_parameters
from llm_run.core.estimate.shapes import shapes_of
from llm_run.core.registry.manager import load_family

PUBLISHED = {
    ("llama", "llama-7b"): 6_738_415_616,
    ("llama", "llama-3-8b"): 8_030_261_248,
    ("llama", "llama-3.2-1b"): 1_235_814_400,
    ("llama", "smollm2-135m"): 134_515_008,
    ("qwen", "qwen2.5-0.5b"): 494_032_768,
    ("qwen", "qwen3-0.6b"): 596_049_920,
    ("qwen", "qwen-7b"): 7_721_324_544,
}
"""Parameters as the model cards' safetensors indexes count them."""
SHAPE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 4096, "hidden_size": 512,
    "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 1408,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
MEASURED = """
import sys
from llm_run.core.cli import main
status = main(sys.argv[1:])
# Not ru_maxrss, which exec keeps: a large test process would be counted as well.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(peak.split()[1]) * 1024)
sys.exit(status)
"""


def launch(*program: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with the environment of a training run already in force."""
    heap = {
        "MALLOC_MMAP_THRESHOLD_": "20000000000",
        "MALLOC_TRIM_THRESHOLD_": "20000000000",
        "MALLOC_TOP_PAD_": "268435456",
    }
    env = {**os.environ, **heap}
    return subprocess.run([sys.executable, *program], env=env, capture_output=True, text=True, check=False)


def plan(words: list[str]) -> dict[str, Any]:
    done = launch("-m", "llm_run.core", "plan", *words, "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model's shape, a tokenizer, and token files."""
    import pydoc_data.topics

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("workshop")
    model, data = folder / "model", folder / "data"
    model.mkdir()
    data.mkdir()
    texts = list(pydoc_data.topics.topics.values())[:20]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1000, special_tokens=["<s>", "</s>"]))
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (model / "config.json").write_text(json.dumps(SHAPE))
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    done = launch(
        "-m", "llm_run.core", "--task", "data", "--tokenizer_name_or_path", str(model),
        "--input_path", str(folder / "corpus.jsonl"), "--output_prefix", str(data / "corpus"), "--workers", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("family", "size"), PUBLISHED)
def test_the_count_of_parameters_is_the_published_one(family: str, size: str) -> None:
    loaded = load_family(family)
    assert count_parameters(shapes_of(loaded, loaded.card.sizes[size])).total == PUBLISHED[family, size]


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_counts_with_what_it_trains(dora: bool) -> None:
    family = load_family("llama")
    config, settings = family.card.sizes["tiny"], LoraSettings(rank=4, alpha=8, dora=dora)
    counted = count_parameters(shapes_of(family, config, settings))
    model = new_adapter(family.build_model(config), family, settings)
    trained = [int(parameter.size) for parameter in model.parameters() if not parameter.stop_gradient]
    assert counted.trained == sum(trained) < counted.total
    assert count_parameters(shapes_of(family, config)).trained == counted.total


def pretraining(workshop: Path, *more: str) -> list[str]:
    return [
        "--task", "pretrain", "--model_name_or_path", str(workshop / "model"), "--input_dir", str(workshop / "data"),
        "--output_dir", str(workshop / "out"), "--max_steps", "1", "--split", "100,0,0", "--overwrite_output_dir",
        "--disable_tqdm", "--threads", "1", *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "phase"),
    [
        (["--per_device_train_batch_size", "6", "--max_length", "256", "--no_save_rehearsal"],
         "the loss of a micro-batch"),
        (["--per_device_train_batch_size", "6", "--max_length", "256", "--no_save_rehearsal", "--save_strategy", "no",
          "--recompute"], "the end of a backward pass"),
        (["--per_device_train_batch_size", "1", "--max_length", "32"], "the end of a backward pass"),
    ],
)  # fmt: skip
def test_the_predicted_peak_is_that_of_a_real_run(workshop: Path, more: list[str], phase: str) -> None:
    words = pretraining(workshop, *more)
    predicted = plan(words)
    done = launch("-c", MEASURED, *words)
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout.splitlines()[-1])
    program = predicted["memory_parts"]["Python and Paddle"]
    assert predicted["peak_phase"] == phase
    assert 0.8 < predicted["peak_memory_bytes"] / measured < 1.25
    assert 0.7 < (predicted["peak_memory_bytes"] - program) / (measured - program) < 1.35


def test_the_predicted_peak_of_a_rank_of_two_is_that_of_a_real_one(workshop: Path) -> None:
    words = pretraining(
        workshop, "--sharding", "stage3", "--nproc_per_node", "2", "--per_device_train_batch_size", "2",
        "--max_length", "256", "--no_save_rehearsal", "--save_strategy", "no", "--logging_steps", "1",
    )  # fmt: skip
    main, other = plan(words)["ranks"]
    done = launch("-m", "llm_run.core", *words)
    assert done.returncode == 0, done.stderr
    measured = json.loads((workshop / "out" / "metrics.jsonl").read_text().splitlines()[-1])["memory_gb"] * 1e9
    assert 0.8 < main["peak_memory_bytes"] / measured < 1.25
    assert main["peak_memory_bytes"] == other["peak_memory_bytes"]
    assert main["parameter_share"] == 0.5


def test_a_plan_of_several_ranks_says_where_each_stands_and_what_it_holds(workshop: Path) -> None:
    words = pretraining(workshop, "--pipeline_parallel_degree", "2", "--nproc_per_node", "4")
    ranks = plan(words)["ranks"]
    assert [rank["coordinates"] for rank in ranks] == [
        {"dp": dp, "pp": pp, "sharding": 0, "sep": 0, "mp": 0} for dp in (0, 1) for pp in (0, 1)
    ]
    assert [rank["groups"] for rank in ranks[:2]] == [{"dp": [0, 2], "pp": [0, 1]}, {"dp": [1, 3], "pp": [0, 1]}]
    assert ranks[0]["layers"] + ranks[1]["layers"] == list(range(6))
    assert ranks[0]["parameter_share"] + ranks[1]["parameter_share"] == pytest.approx(1)
    sent = {(one["axes"], one["operation"]) for one in ranks[0]["communication"]}
    assert sent == {("pp", "send"), ("dp", "all-reduce")}


def test_ranks_that_are_alike_are_one_line(workshop: Path) -> None:
    words = pretraining(workshop, "--tensor_parallel_degree", "2", "--sharding", "stage3", "--nproc_per_node", "4")
    lines = launch("-m", "llm_run.core", "plan", *words).stdout.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("ranks "))
    assert lines[at].split("  ")[0] == "ranks"
    assert lines[at + 1].split()[:5] == ["0-3", "0-1", "0-1", "0-5", "25.0%"]
    assert not lines[at + 2]
    assert "sharding 2 (stage 3): ranks 0, 2 | 1, 3" in lines
    assert "mp 2: ranks 0-1 | 2-3" in lines


def test_a_plan_writes_nothing_and_loads_no_weights(workshop: Path) -> None:
    before = sorted(workshop.rglob("*"))
    plan([*pretraining(workshop), "--continue_training"])
    assert sorted(workshop.rglob("*")) == before


def test_a_plan_counts_steps_tokens_and_time(workshop: Path) -> None:
    found = plan(pretraining(workshop, "--gradient_accumulation_steps", "3", "--max_steps", "50"))
    assert found["tokens_per_step"] == 8 * 3 * 512
    assert found["steps"] == 50
    assert found["seconds"] == pytest.approx(50 * found["seconds_per_step"])
    matrices = 4096 * 512 + 6 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1408)
    flops = (6 * matrices + 12 * 6 * 512 * 512) * found["tokens_per_step"]
    speed = found["machine_gflops"] * 1e9 * found["share_of_machine"]
    assert found["seconds_per_step"] == pytest.approx(flops / speed)


def test_a_plan_that_does_not_fit_says_what_to_do(workshop: Path) -> None:
    words = (
        "--task pretrain --family llama --model_size llama-3.1-405b --input_dir d --output_dir o --no_save_rehearsal"
    )
    done = launch("-m", "llm_run.core", "plan", *words.split())
    assert done.returncode == 0, done.stderr
    assert "parameters  405,853,388,800" in done.stdout
    assert "warning: this does not fit. Use --recompute, a smaller" in done.stdout


def test_a_plan_of_a_task_that_decodes_counts_keys_and_values(workshop: Path) -> None:
    found = plan(["--task", "chat", "--model_name_or_path", str(workshop / "model"), "--max_new_tokens", "100"])
    assert found["memory_parts"]["keys and values"] == 2 * 6 * 4 * 64 * 512 * 4
    assert "seconds" not in found


def test_a_refused_plan_is_refused_as_the_run_is(workshop: Path) -> None:
    words = pretraining(workshop, "--tensor_parallel_degree", "3")
    refusals = [launch("-m", "llm_run.core", *extra, *words) for extra in (["plan"], [])]
    assert [done.returncode for done in refusals] == [2, 2]
    assert refusals[0].stderr == refusals[1].stderr


def test_tokens_of_a_step_are_those_of_all_micro_batches(workshop: Path) -> None:
    from llm_run.core.config.flags import parse
    from llm_run.core.config.resolve import resolve
    from llm_run.core.request import prepare

    run, _ = prepare(resolve(parse(pretraining(workshop, "--gradient_accumulation_steps", "4")))[0])
    assert tokens_per_step(run) == 8 * 4 * 512
