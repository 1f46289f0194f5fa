"""Run the ready-made configurations of every family at tiny size, and write what each took and brought.

    python benchmarks/configurations.py

Writes docs/configurations.md. The models are the families' tiny ones and learn sums below 100: the figures say that
each configuration runs and learns, and what a run takes at the least; they say nothing about large models.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LLM_RUN = Path(sys.executable).parent / "llm-run"
GPT = ("<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
ICE = ("<pad>", "<sop>", "<eop>", "[gMASK]", "[MASK]", "[sMASK]", "<n>", "<|tab|>")
SUMS = [f"{a} and {b} make {a + b}, times {a * b}." for a in range(50) for b in range(50)]
TOKENS = 520
"""Of each tokenizer: more than the tiny models begin with, so that these grow."""
LENGTHS = {"max_length": 64, "src_length": 32}
STEPS = {
    "pretrain": {"max_steps": 300, "learning_rate": 3e-3, "min_learning_rate": 3e-4, "warmup_steps": 10},
    "sft": {"max_steps": 600, "learning_rate": 2e-3},
    "lora": {"max_steps": 100, "learning_rate": 2e-3},
    "prefix_tuning": {"max_steps": 100, "learning_rate": 3e-2, "num_prefix_tokens": 16},
    "dpo": {"max_steps": 30, "learning_rate": 1e-4},
}
"""What is changed for models this small."""
SMALL = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "logging_steps": 10, "eval_steps": 100,
    "evaluation_strategy": "no", "save_strategy": "no", "disable_tqdm": True,
}  # fmt: skip
SAVED_AT_THE_END = {"save_strategy": "steps", "save_steps": 1_000_000}


def write_tokenizers(folder: Path) -> None:
    """Write a small tokenizer in each form that a family reads."""
    import sentencepiece
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SUMS), model_writer=model, vocab_size=TOKENS, model_type="bpe", byte_fallback=True,
        user_defined_symbols=list(ICE), hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    for name in ("tokenizer.model", "ice_text.model"):
        (folder / name).write_bytes(model.getvalue())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        SUMS,
        trainers.BpeTrainer(
            vocab_size=TOKENS, special_tokens=list(GPT), initial_alphabet=alphabet, show_progress=False
        ),
    )
    bpe.save(str(folder / "tokenizer.json"))
    bpe.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))


def write_data(folder: Path, *, records: int) -> None:
    """Write a corpus, records, pairs of answers and prompts, all of them sums."""
    draw = random.Random(0)
    _write_lines(folder / "corpus.jsonl", ({"text": " ".join(draw.sample(SUMS, 20))} for _ in range(records)))
    for part, count in (("train", records), ("dev", records // 4)):
        pairs = [(draw.randrange(50), draw.randrange(50)) for _ in range(count)]
        asked = [f"{a} and {b}" for a, b in pairs]
        answers = [(f"make {a + b}.", f"times {a - b}?") for a, b in pairs]
        right = ({"src": src, "tgt": good} for src, (good, _) in zip(asked, answers, strict=True))
        _write_lines(folder / "records" / f"{part}.json", right)
        both = (
            {"prompt": src, "chosen": good, "rejected": bad} for src, (good, bad) in zip(asked, answers, strict=True)
        )
        _write_lines(folder / "pairs" / f"{part}.json", both)
    _write_lines(folder / "prompts.jsonl", ({"src": f"{a} and {50 - a}"} for a in range(1, 11)))


def _write_lines(path: Path, records: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")


def life(tokenizer: Path, data: Path, *, sft_steps: int) -> dict[str, dict[str, Any]]:
    """Return the tasks of a model's life in their order, each with what its configuration needs to be told."""
    records = {"dataset_name_or_path": data / "records", **LENGTHS}
    tuned = {"model_name_or_path": "out/sft", **records}
    asked = {"data_file": data / "prompts.jsonl", "max_new_tokens": 8, "disable_tqdm": True}
    return {
        "data": {"tokenizer_name_or_path": tokenizer, "input_path": data / "corpus.jsonl", "disable_tqdm": True},
        "pretrain": {"model_size": "tiny", "tokenizer_name_or_path": tokenizer, "max_length": 64, **SMALL},
        "sft": {"model_name_or_path": "out/pretrain", **records, **SMALL, **SAVED_AT_THE_END},
        "lora": {**tuned, **SMALL},
        "prefix_tuning": {**tuned, **SMALL},
        "dpo": {**tuned, **SMALL, "dataset_name_or_path": data / "pairs"},
        "merge_lora": {"model_name_or_path": "out/sft"},
        "merge_shards": {"model_name_or_path": f"out/sft/checkpoint-{sft_steps}"},
        "evaluate": {"model_name_or_path": "out/merged", **records, "disable_tqdm": True},
        "generate": {"model_name_or_path": "out/merged", "src_length": 32, **asked},
        "convert": {"model_name_or_path": "out/merged", "output_path": "out/converted"},
        "export": {"model_name_or_path": "out/merged"},
        "ptq": {"model_name_or_path": "out/merged", **records, "disable_tqdm": True},
        "gptq": {"model_name_or_path": "out/merged", **records, "gptq_step": 2, "disable_tqdm": True},
    }


def words(family: str, task: str, changed: Mapping[str, Any]) -> list[str]:
    """Return the command's words: the ready-made configuration, and what is changed in it."""
    flags = [str(word) for name, value in changed.items() for word in (f"--{name}", _spelled(value))]
    return ["--config", f"{family}/{task}", *flags]


def _spelled(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def run(family: str, task: str, changed: Mapping[str, Any], folder: Path) -> tuple[float, float]:
    """Run one configuration in a process of its own; return its seconds of CPU and its peak memory in MB."""
    process = subprocess.Popen(
        [LLM_RUN, *words(family, task, changed)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{family}/{task} failed:\n{said}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def result(task: str, folder: Path) -> str:
    """Return what a run brought, in a few words."""
    if task in STEPS:
        rows = [json.loads(line) for line in (folder / "out" / task / "metrics.jsonl").read_text().splitlines()]
        told = f"loss {rows[0]['loss']:.3f} → {rows[-1]['loss']:.3f}"
        return told + (f", right {rows[-1]['rewards_accuracy']:.0%}" if task == "dpo" else "")
    if task == "merge_lora":
        report = json.loads((folder / "out" / "merged" / "report.json").read_text())
        return f"logits differ by {report['adapter']['max_logit_difference']:.0e}"
    if task == "export":
        report = json.loads((folder / "out" / "exported" / "report.json").read_text())
        return f"logits differ by {report['export']['max_logit_difference']:.0e}"
    if task == "merge_shards":
        report = json.loads((folder / "out" / "whole" / "report.json").read_text())
        return f"{report['round_trip']['tensors']} tensors, equal to the bit"
    if task == "evaluate":
        found = json.loads((folder / "out" / "evaluation" / "evaluation.json").read_text())["results"]["records"]
        return f"perplexity {found['ppl']:.2f}, token accuracy {found['accuracy']:.0%}"
    if task == "generate":
        answers = [json.loads(line)["output"] for line in (folder / "answers.jsonl").read_text().splitlines()]
        return f"{sum('make 50' in answer for answer in answers)} of {len(answers)} sums right"
    if task in ("ptq", "gptq"):
        report = json.loads((folder / "out" / task / "report.json").read_text())["quantization"]["comparison"]
        return f"perplexity {report['perplexity_before']:.3f} → {report['perplexity_after']:.3f}"
    return "written"


def page(figures: Mapping[str, Mapping[str, tuple[float, float, str]]]) -> str:
    """Return docs/configurations.md."""
    text = (
        "# Ready-made configurations\n\n"
        "<!-- made by benchmarks/configurations.py -->\n\n"
        "One for each family and task: `llm-run configs ls` lists them, `cat llama/sft` prints one, and\n"
        "`cp llama/sft` makes a file of it. A name also stands where a file is expected:\n"
        "`llm-run --config llama/sft --model_name_or_path ./model`.\n\n"
        "Below, each was run at tiny size (a model of about 0.3M parameters, sums below 100 to learn), process start\n"
        "included. How many steps each took is in `STEPS` of the script. For baichuan, chatglm and chatglm2,\n"
        "which have a SentencePiece vocabulary here, they do not suffice for the sums: answers have the right form\n"
        "and are a few off (looked at for the first two).\n"
    )
    for task in next(iter(figures.values())):
        text += f"\n## {task}\n\n| family | CPU seconds | peak MB | result |\n| --- | --- | --- | --- |\n"
        for family, tasks in figures.items():
            seconds, memory, brought = tasks[task]
            text += f"| {family} | {seconds:.1f} | {memory:.0f} | {brought} |\n"
    return text


def main() -> None:
    from llm_run.core.registry.manager import installed

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(installed().families))
    families = parser.parse_args().families
    figures: dict[str, dict[str, tuple[float, float, str]]] = {}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        write_tokenizers(work / "tokenizer")
        write_data(work / "data", records=2000)
        for family in families:
            folder = work / family
            folder.mkdir()
            for task, told in life(work / "tokenizer", work / "data", sft_steps=STEPS["sft"]["max_steps"]).items():
                seconds, memory = run(family, task, told | STEPS.get(task, {}), folder)
                brought = result(task, folder)
                figures.setdefault(family, {})[task] = seconds, memory, brought
                print(f"{family}/{task}: {seconds:.1f} s, {memory:.0f} MB, {brought}", flush=True)
    (ROOT / "docs" / "configurations.md").write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
