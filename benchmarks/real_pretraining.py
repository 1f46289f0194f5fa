"""Pretrain a 10M-parameter model on real text for ten minutes and compare it with a bigram model of the same tokens.

    python benchmarks/real_pretraining.py en --data ../shared/data/pretrain --minutes 10
    python benchmarks/real_pretraining.py zh --data ../shared/data/pretrain --minutes 10

Everything goes through the command line that users have: tokenizer, token files, pretraining, generation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from bigram import BigramModel

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SEQUENCE, BATCH = 256, 2
SHAPE = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "num_attention_heads": 4,
    "max_position_embeddings": SEQUENCE, "rms_norm_eps": 1e-5, "vocab_size": 8192, "tie_word_embeddings": False,
    "hidden_act": "silu", "initializer_range": 0.06, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
MODELS = {
    "en": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 4, **SHAPE},
    "zh": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "num_key_value_heads": 2, **SHAPE},
}
PROMPTS = {
    "en": ["The whale", "Prince Andrew looked at", "In the morning the ship"],
    "zh": ["宝玉听了", "行者道", "在本节中，我们"],
}


def run(*command: str | Path) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True)


def prepare(language: str, data: Path, work: Path) -> None:
    """Train the tokenizer, write token files for training and evaluation, and the model's config.json."""
    train, dev = data / f"pretrain_{language}.train.jsonl", data / f"pretrain_{language}.dev.jsonl"
    model = work / "model"
    run(sys.executable, ROOT / "examples" / "train_tokenizer.py", train, model, "--vocab_size", "8192")
    (model / "config.json").write_text(json.dumps(MODELS[language], indent=2) + "\n", encoding="utf-8")
    for name, source in (("train", train), ("dev", dev)):
        prefix = work / "tokens" / name
        options = ["--tokenizer_name_or_path", model, "--input_path", source, "--output_prefix", prefix]
        run(BIN / "llm-run", "--family", family(language), "--task", "data", *options)


def family(language: str) -> str:
    return {"en": "llama", "zh": "qwen"}[language]


def pretrain(work: Path, steps: int) -> dict[str, float]:
    """Run pretraining and return the last logged values of ``metrics.jsonl``."""
    options = {
        "model_name_or_path": work / "model", "input_dir": work / "tokens", "output_dir": work / "run",
        "max_length": SEQUENCE, "max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3,
        "embedding_learning_rate": 4e-2, "head_learning_rate": 4e-3,
        "min_learning_rate": 5e-5, "lr_scheduler_type": "cosine", "warmup_steps": max(steps // 30, 1),
        "weight_decay": 0.1, "adam_beta2": 0.98, "logging_steps": 100, "save_strategy": "no",
        "evaluation_strategy": "steps", "eval_steps": max(steps // 3, 1), "do_eval": "true",
    }  # fmt: skip
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    run(BIN / "llm-run", "--task", "pretrain", "--overwrite_output_dir", *flags)
    values: dict[str, float] = {}
    for line in (work / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values.update(json.loads(line))
    return values


def bigram_loss(work: Path) -> float:
    """Return the bigram model's loss on the development tokens, in the same windows as the evaluation's."""
    vocab_size = MODELS["en"]["vocab_size"]
    train, dev = (np.fromfile(work / "tokens" / f"{name}.bin", dtype=np.uint16) for name in ("train", "dev"))
    return BigramModel(train.astype(np.int64), vocab_size).loss(dev[:-1].astype(np.int64), dev[1:].astype(np.int64))


def cpu_seconds() -> float:
    """Return the CPU time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sample(language: str, work: Path) -> None:
    prompts = work / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"src": text}, ensure_ascii=False) + "\n" for text in PROMPTS[language]))
    output = work / "samples.jsonl"
    output.unlink(missing_ok=True)
    options = ["--model_name_or_path", work / "run", "--data_file", prompts, "--output_file", output]
    run(BIN / "llm-run", "--task", "generate", *options, "--max_new_tokens", "48", "--temperature", "0.8")
    for line in output.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        print(f"  {record['src']!r} -> {record['output']!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=sorted(MODELS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "pretrain")
    parser.add_argument("--work", type=Path, default=None, help="folder for everything made (default demo-output/…)")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the pretraining run, by a short trial")
    parser.add_argument(
        "--steps", type=int, help="its length in steps, where the machine is shared and time means little"
    )
    arguments = parser.parse_args()
    work: Path = arguments.work or ROOT / "demo-output" / f"pretraining-{arguments.language}"

    prepare(arguments.language, arguments.data, work)
    steps = arguments.steps
    if steps is None:
        steps = int(arguments.minutes * 60 * pretrain(work, 60)["tokens_per_second"] / (BATCH * SEQUENCE))
    start, busy = time.monotonic(), cpu_seconds()
    values = pretrain(work, steps)
    minutes, cpu_minutes = (time.monotonic() - start) / 60, (cpu_seconds() - busy) / 60
    sample(arguments.language, work)
    bigram = bigram_loss(work)
    verdict = "below" if values["eval_loss"] < bigram else "NOT BELOW"
    print(
        f"{arguments.language}: {steps} steps, {steps * BATCH * SEQUENCE} tokens, in {minutes:.1f} min "
        f"({cpu_minutes:.1f} min of CPU time on {os.cpu_count()} cores); "
        f"dev loss {values['eval_loss']:.4f}, {verdict} the bigram model's {bigram:.4f}"
    )


if __name__ == "__main__":
    main()
