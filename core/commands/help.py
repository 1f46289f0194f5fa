"""``--help``: what the command does, the options of one task, and examples that can be pasted."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import get_args

from ..config.flags import SWITCHES
from ..config.schema import Option, options
from ..errors import Problem, RefusedError
from ..registry.facts import Task
from ..registry.manager import installed
from ..tasks import TASKS
from .configuration import TITLES, shown
from .table import aligned, terminal_width, wrapped

ABOUT = {
    "data": "turn text or JSONL into token files for pretraining",
    "pretrain": "train a model on token files, from random weights or from given ones",
    "sft": "fine-tune a model on instructions or conversations",
    "lora": "fine-tune a small adapter on instructions; the model stays as it is",
    "merge_lora": "add an adapter to its model and write the result as a model directory",
    "merge_shards": "join what the ranks of a training run have saved, and write it as a model directory",
    "prefix_tuning": "train keys and values that stand before every text, beside a frozen model",
    "dpo": "tune a model on pairs of answers of which one is the better (DPO and its kin)",
    "evaluate": "measure a model by token files, text, records or benchmarks",
    "generate": "answer the prompts of a JSONL file",
    "chat": "talk with a model in the terminal",
    "serve": "answer OpenAI's API over HTTP, with a chat page beside it where wanted",
    "convert": "write any readable weights as a Hugging Face model directory, or as a GGUF file",
    "export": "write a model as one graph that Paddle's inference library runs without its Python code",
    "ptq": "round a model's weights, and activations where asked, to 8 or 4 bits",
    "gptq": "round a model's weights to 4 or 8 bits, errors made good by the weights that are left",
}
COMMANDS = {
    "llm-run matrix": "what works for which family, and why the rest does not",
    "llm-run families": "the installed families, their packages and sizes",
    "llm-run configs ...": "ready-made configurations: ls, cat NAME, cp NAME [FILE]",
    "llm-run plan ...": "memory, time and problems of a run, without starting it",
    "llm-run env": "versions, devices, threads, and the kernels chosen",
}
EXAMPLES = {
    "": (
        "llm-run --task chat --model_name_or_path ./model",
        "llm-run --task sft --config sft.json --output_dir out --learning_rate 2e-5",
        "llm-run plan --task pretrain --family FAMILY --model_size tiny --input_dir data --output_dir out",
    ),
    "data": (
        "llm-run --task data --family FAMILY --tokenizer_name_or_path ./tokenizer \\\n"
        "      --input_path corpus.jsonl --output_prefix data/corpus",
    ),
    "pretrain": (
        "llm-run --task pretrain --family FAMILY --model_size tiny --input_dir data \\\n"
        "      --output_dir out --max_steps 100 --logging_steps 10",
    ),
    "sft": (
        "llm-run --task sft --model_name_or_path ./model --dataset_name_or_path ./data \\\n"
        "      --output_dir out --num_train_epochs 1 --zero_padding",
    ),
    "lora": (
        "llm-run --task lora --model_name_or_path ./model --dataset_name_or_path ./data \\\n"
        "      --output_dir adapter --lora_rank 16 --learning_rate 3e-4 --num_train_epochs 1",
        "llm-run --task chat --model_name_or_path ./model --lora_path adapter",
    ),
    "merge_lora": (
        "llm-run --task merge_lora --model_name_or_path ./model --lora_path adapter --output_path ./merged",
    ),
    "merge_shards": (
        "llm-run --task merge_shards --model_name_or_path out/checkpoint-1000 --output_path ./model",
        "llm-run --task merge_shards --model_name_or_path ./paddlenlp-checkpoint --output_path ./model",
    ),
    "prefix_tuning": (
        "llm-run --task prefix_tuning --model_name_or_path ./model --dataset_name_or_path ./data \\\n"
        "      --output_dir prefix --num_prefix_tokens 32 --learning_rate 3e-2",
        "llm-run --task chat --model_name_or_path ./model --prefix_path prefix",
    ),
    "dpo": (
        "llm-run --task dpo --model_name_or_path ./model --dataset_name_or_path pairs.json \\\n"
        "      --output_dir out --learning_rate 5e-7 --num_train_epochs 1",
    ),
    "evaluate": (
        "llm-run --task evaluate --model_name_or_path ./model --input_path text.jsonl --output_dir results",
        "llm-run --task evaluate --model_name_or_path ./model --benchmark gsm8k --data_file gsm8k_test.jsonl \\\n"
        "      --num_fewshot 5 --output_dir results",
    ),
    "generate": (
        "llm-run --task generate --model_name_or_path ./model --data_file questions.jsonl \\\n"
        "      --output_file answers.jsonl --decode_strategy greedy_search",
    ),
    "chat": ("llm-run --task chat --model_name_or_path ./model --system 'Answer in one sentence.'",),
    "serve": (
        "llm-run --task serve --model_name_or_path ./model --ui",
        "curl http://127.0.0.1:8010/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        '      -d \'{"messages": [{"role": "user", "content": "Hello"}]}\'',
    ),
    "convert": (
        "llm-run --task convert --model_name_or_path model.gguf --output_path ./model",
        "llm-run --task convert --model_name_or_path ./model --output_path model.gguf --save_dtype q8_0",
    ),
    "export": (
        "llm-run --task export --model_name_or_path ./model --output_path ./exported",
        "llm-run --task chat --model_name_or_path ./exported --mode static",
    ),
    "ptq": (
        "llm-run --task ptq --model_name_or_path ./model --dataset_name_or_path ./data --output_dir model-w8a8 \\\n"
        "      --shift --smooth --smooth_all_linears",
        "llm-run --task ptq --model_name_or_path ./model --dataset_name_or_path ./data --output_dir model-awq \\\n"
        "      --quant_type WINT4 --awq --max_ppl_increase 5",
    ),
    "gptq": (
        "llm-run --task gptq --model_name_or_path ./model --dataset_name_or_path ./data --output_dir model-gptq",
        "llm-run --task chat --model_name_or_path model-gptq",
    ),
}
ABOUT_COMMANDS = {
    "matrix": "usage: llm-run matrix [--family FAMILY] [--format table|json|markdown]\n\n"
    "Print what works, with the reason for what does not. With --family, the tests behind each yes as well.\n"
    "JSON holds support (yes, no, untested), reason and proof by family, variant and feature.",
    "families": "usage: llm-run families [--format table|json]\n\n"
    "Print the installed family plugins: package, version, plugin API, variants, and what is wrong with each.\n"
    "LLM_RUN_BLOCK_PLUGINS=name,name in the environment leaves families out.",
    "configs": "usage: llm-run configs ls | cat NAME | cp NAME [FILE]\n\n"
    "List, print or copy the ready-made configurations, one for each family and task: llama/sft.\n"
    "A name also stands where --config takes a file: llm-run --config llama/sft --model_name_or_path ./model",
    "plan": "usage: llm-run plan --task TASK [the same arguments as a run] [--format table|json]\n\n"
    "Print what the run would need: parameters, peak memory by part, steps, tokens, and an estimate of the time,\n"
    "for which it measures this machine for a second; of several processes also what each would hold and send.\n"
    "Nothing is written, and no weights are loaded.",
    "env": "usage: llm-run env [--format table|json]\n\n"
    "Print versions, devices, threads, the environment of a run and who set it, and the kernels chosen.",
}


def print_help(command: str, task: str | None) -> int:
    """Print help on a command, on one task, or on the whole.

    Raises:
        RefusedError: there is no such task, or not in this version.
    """
    if command:
        print(ABOUT_COMMANDS[command])
    elif task is None:
        print("\n".join(_overview()))
    elif task in TASKS:
        print("\n".join(_task(task)))
    else:
        raise RefusedError(_no_help(task))
    return 0


def _no_help(task: str) -> Problem:
    if task in get_args(Task):
        return Problem("--task", f"'{task}'", "is not in this version", f"Tasks: {', '.join(TASKS)}.")
    near = difflib.get_close_matches(task, TASKS, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return Problem("--task", f"'{task}'", "is not a task", f"{hint}Tasks: {', '.join(TASKS)}.")


def _overview() -> Iterator[str]:
    yield "usage: llm-run --task TASK [--family FAMILY] [--config FILE ...] [--OPTION VALUE ...]"
    yield ""
    yield "Train, tune, convert and run large language models on PaddlePaddle."
    yield ""
    yield "Tasks"
    yield from aligned([(f"  {name}", ABOUT[name]) for name in TASKS])
    yield "  Options of a task, with defaults: llm-run --task TASK --help"
    yield ""
    yield "Commands"
    yield from aligned([(f"  {name}", text) for name, text in COMMANDS.items()])
    yield ""
    yield "Flags of every call"
    families = ", ".join(installed().families) or "none is installed"
    given = {
        "--family FAMILY": f"{families}; may be left out where the model directory says it",
        "--config FILE ...": "JSON or YAML with options; of several values the last one holds, flags last",
    } | {f"--{name}": text for name, text in SWITCHES.items()}
    column = max(map(len, given)) + 4
    for name, text in given.items():
        yield from wrapped(text, first=f"  {name}".ljust(column))
    yield ""
    yield "Examples"
    yield from (f"  {line}" for line in EXAMPLES[""])


def _task(task: str) -> Iterator[str]:
    yield f"usage: llm-run --task {task} [--family FAMILY] [--config FILE ...] [--OPTION VALUE ...]"
    yield ""
    yield f"{ABOUT[task][0].upper()}{ABOUT[task][1:]}."
    yield ""
    yield "Example"
    yield from (f"  {line}" for line in EXAMPLES[task])
    group = ""
    for option in options().values():
        if not option.is_read_by(task):
            continue
        if option.group != group:
            group = option.group
            yield ""
            yield TITLES[group]
        yield from _option(option)


def _option(option: Option) -> list[str]:
    """Return the lines of one option: name and kind on the left, help and default on the right."""
    kind = {bool: "", int: " N", float: " X", str: " TEXT", tuple: " TEXT ..."}[option.kind]
    left = f"  --{option.name}{kind}"
    words = f" One of {', '.join(option.choices)}." if option.choices else ""
    default = "" if option.default is None or shown(option.default) == "-" else f" [{shown(option.default)}]"
    if option.default is True:
        default = f" [true; --no_{option.name} turns it off]"
    text = f"{option.help[0].upper()}{option.help[1:]}.{words}{default}"
    column = 36
    if terminal_width() < 70:
        return [left, *wrapped(text, first="      ")]
    if len(left) > column - 2:
        return [left, *wrapped(text, first=" " * column)]
    return wrapped(text, first=left.ljust(column), then=" " * column)
