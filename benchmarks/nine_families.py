"""Train a tiny model of every family on real text and compare it with a unigram model of the same tokens.

    python benchmarks/nine_families.py --data ../shared/data/pretrain --steps 800

Writes docs/nine-families.md. One tokenizer, the same tokens and the same number of steps for all, so that the losses
can be read side by side; they say that each family learns, not which one is best.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from llm_run.core.registry.manager import installed, load_family

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
VOCAB, SEQUENCE, BATCH = 4096, 128, 8


def run(*command: str | Path) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True)


def tokenize(data: Path, work: Path) -> None:
    """Make one byte-level tokenizer and token files for training and evaluation."""
    train, dev = data / "pretrain_en.train.jsonl", data / "pretrain_en.dev.jsonl"
    run(sys.executable, ROOT / "examples" / "train_tokenizer.py", train, work / "tokenizer", "--vocab_size", str(VOCAB))
    for name, source in (("train", train), ("dev", dev)):
        options = ["--tokenizer_name_or_path", work / "tokenizer", "--input_path", source]
        prefix = work / "tokens" / name
        run(BIN / "llm-run", "--family", "llama", "--task", "data", *options, "--output_prefix", prefix)


def unigram_loss(work: Path) -> float:
    """Return the loss, in nats a token, of a unigram model with add-one smoothing on the development tokens."""
    train, dev = (np.fromfile(work / "tokens" / f"{name}.bin", dtype=np.uint16) for name in ("train", "dev"))
    counts = np.bincount(train, minlength=VOCAB) + 1.0
    return float(-np.log(counts / counts.sum())[dev[1:]].mean())


def shape(family: str, work: Path) -> Path:
    """Write the config.json of the family's tiny model, with the vocabulary of our tokenizer; return its folder.

    Each family reads its own kind of tokenizer file; all are given the same tokens here, so the folder holds none.
    """
    config = dataclasses.replace(load_family(family).card.sizes["tiny"], vocab_size=VOCAB)
    folder = work / f"{family}-shape"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_fields(), indent=2) + "\n", encoding="utf-8")
    return folder


def pretrain(family: str, work: Path, steps: int) -> dict[str, float]:
    """Train the family's tiny model and return the last value of everything in ``metrics.jsonl``."""
    options = {
        "input_dir": work / "tokens", "model_name_or_path": shape(family, work), "output_dir": work / family,
        "max_length": SEQUENCE, "max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": 3e-3,
        "min_learning_rate": 3e-4, "lr_scheduler_type": "cosine", "warmup_steps": max(steps // 20, 1),
        "weight_decay": 0.1, "adam_beta2": 0.95, "logging_steps": 50, "save_strategy": "no", "do_eval": "true",
    }  # fmt: skip
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    run(
        BIN / "llm-run",
        "--task",
        "pretrain",
        "--family",
        family,
        "--overwrite_output_dir",
        *flags,
    )
    values: dict[str, float] = {}
    for line in (work / family / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values.update(json.loads(line))
    return values


def page(rows: list[tuple[str, float, float]], unigram: float, steps: int) -> str:
    text = (
        "# Every family learns\n\n"
        "<!-- made by benchmarks/nine_families.py -->\n\n"
        f"The `tiny` model of each family after {steps} steps of {BATCH} x {SEQUENCE} tokens of English prose, with\n"
        f"one {VOCAB}-token tokenizer. A unigram model of the same tokens has a loss of **{unigram:.3f}**.\n\n"
        "| family | development loss | below the unigram model by | tokens/s |\n| --- | --- | --- | --- |\n"
    )
    return text + "".join(
        f"| {name} | {loss:.3f} | {unigram - loss:.3f} | {speed:.0f} |\n" for name, loss, speed in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "pretrain")
    parser.add_argument("--work", type=Path, default=ROOT / "demo-output" / "nine-families")
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()

    tokenize(arguments.data, arguments.work)
    unigram = unigram_loss(arguments.work)
    rows = []
    for family in installed().families:
        values = pretrain(family, arguments.work, arguments.steps)
        rows.append((family, values["eval_loss"], values["tokens_per_second"]))
    text = page(rows, unigram, arguments.steps)
    (ROOT / "docs" / "nine-families.md").write_text(text, encoding="utf-8")
    print(text)
    behind = [name for name, loss, _ in rows if loss >= unigram]
    if behind:
        raise SystemExit(f"not below the unigram model: {', '.join(behind)}")


if __name__ == "__main__":
    main()
