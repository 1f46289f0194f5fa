"""What a task requires, and which options exclude each other."""

from __future__ import annotations

import pytest

from llm_run.core.config.check import check_config
from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve

SFT = "--task sft --model_name_or_path m --dataset_name_or_path d --output_dir o "
PRETRAIN = "--task pretrain --model_size tiny --input_dir d --output_dir o "
GENERATE = "--task generate --model_name_or_path m --data_file f "


def problems(command: str) -> list[str]:
    return [str(problem) for problem in check_config(resolve(parse(command.split()))[0])]


@pytest.mark.parametrize(
    "command",
    [
        SFT,
        PRETRAIN,
        GENERATE,
        "--task chat --model_name_or_path m",
        "--task data --input_path i --output_prefix p --tokenizer_name_or_path t",
        "--task convert --model_name_or_path m --output_path o",
        SFT + "--sharding stage2",
    ],
)
def test_a_complete_request_has_no_problem(command: str) -> None:
    assert problems(command) == []


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("--task sft", ["--dataset_name_or_path", "--model_name_or_path", "--output_dir"]),
        ("--task pretrain", ["--input_dir", "--model_name_or_path", "--output_dir"]),
        ("--task generate", ["--data_file", "--model_name_or_path"]),
        ("--task chat", ["--model_name_or_path"]),
        ("--task data", ["--input_path", "--output_prefix", "--tokenizer_name_or_path"]),
        ("--task convert", ["--model_name_or_path", "--output_path"]),
    ],
)
def test_what_a_task_cannot_do_without_is_named(command: str, keys: list[str]) -> None:
    said = problems(command)
    assert [text.split(": ")[0] for text in said] == keys
    assert all("is needed" in text for text in said)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (SFT + "--model_size tiny --tokenizer_name_or_path t", "--model_size: tiny excludes model_name_or_path: "),
        (PRETRAIN + "--continue_training", "--continue_training: true has no weights to start from."),
        (
            "--task chat --model_size tiny",
            "--tokenizer_name_or_path: is needed: a model of --model_size has no tokenizer",
        ),
        (SFT + "--fp16 --bf16", "--fp16: true excludes bf16. Choose one of them."),
        (SFT + "--src_length 2048", "--src_length: 2048 leaves no room for the answer in max_length (2048)."),
        (SFT + "--src_length 0", "--src_length: 0 must be 1 or more."),
        (PRETRAIN + "--max_length 0", "--max_length: 0 must be 1 or more."),
        (SFT + "--save_steps 0", "--save_steps: 0 must be 1 or more."),
        (SFT + "--no_do_train", "--do_train: false leaves nothing to do."),
        (SFT + "--sharding stage4", "--sharding: 'stage4' is not one stage. Use one of stage1, stage2, stage3."),
        (SFT + "--sharding=stage2,offload", "--sharding: 'stage2,offload' asks for offload, which would keep"),
        (SFT + "--sharding=stage1,stage2", "--sharding: 'stage1,stage2' is not one stage."),
        (SFT + "--tensor_parallel_degree 0", "--tensor_parallel_degree: 0 must be 1 or more. -1 leaves it to llm-run."),
        (SFT + "--nnodes 2", "--master: is needed where nnodes is above 1."),
        (SFT + "--nnodes 2 --master host", "--master: 'host' is not host:port. Name a port of the first machine."),
        (SFT + "--master h:1", "--master: h:1 has no effect on one machine. Give --nnodes, or leave it out."),
        (SFT + "--virtual_pp_degree 0", "--virtual_pp_degree: 0 must be 1 or more."),
        (SFT + "--dist_timeout 0.5", "--dist_timeout: 0.5 must be 1 second or more."),
        (
            SFT + "--nproc_per_node 4 --devices 0,1",
            "--nproc_per_node: 4 does not fit the 2 GPUs of devices, which get one process each. Leave it out.",
        ),
        (SFT + "--node_rank 1", "--node_rank: 1 is not below nnodes (1)."),
        (SFT + "--device cpu --devices 0,1", "--devices: 0,1 names GPUs, but device is cpu."),
        (SFT + "--threads 0", "--threads: 0 must be 1 or more."),
        (GENERATE + "--batch_size 0", "--batch_size: 0 must be 1 or more."),
        (GENERATE + "--num_draft_tokens -1", "--num_draft_tokens: -1 must be 0 or more."),
        (
            GENERATE + "--num_draft_tokens 4 --decode_strategy beam_search",
            "--num_draft_tokens: 4 cannot help beam_search. Use sampling or greedy_search, or leave it out.",
        ),
        (GENERATE + "--draft_model .", "--draft_model: . guesses nothing without --num_draft_tokens. Give 4."),
        (GENERATE + "--num_draft_tokens 4 --draft_model /nowhere", "--draft_model: /nowhere does not exist."),
        (GENERATE + "--top_p 2", "--top_p: 2.0 is out of range. Give 0 to 1."),
    ],
)
def test_a_value_that_cannot_be_is_refused(command: str, said: str) -> None:
    found = problems(command)
    assert len(found) == 1
    assert found[0].startswith(said)
