"""Train the same steps under every layout of ranks and compare them with one process; resume each layout's checkpoint
under every other.

    python benchmarks/layouts.py                            # the tiny llama, 20 steps, every layout
    python benchmarks/layouts.py --layouts "tp2,dp2 x pp2"   # these layouts
    python benchmarks/layouts.py --families llama,bloom     # these families; "all" for every installed one
    python benchmarks/layouts.py --pairs                    # and resume layouts from each other
    python benchmarks/layouts.py --layouts one,tp2 --pairs tp2,one

Prints a row a layout: the largest relative difference of loss and gradient norm over all steps, and the largest
difference of a parameter and of a moment in the last checkpoint. 0 where losses and parameters stay within 1e-5.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BOUND = 1e-5
BATCH = 8
TENSOR, STAGES = "--tensor_parallel_degree 2", "--pipeline_parallel_degree 2"
LAYOUTS = {
    "one": (1, 1, ""),
    "dp2": (2, 2, ""),
    "stage1 x 2": (2, 2, "--sharding stage1"),
    "stage2 x 2": (2, 2, "--sharding stage2"),
    "stage3 x 2": (2, 2, "--sharding stage3"),
    "tp2": (2, 1, TENSOR),
    "tp2 + sp": (2, 1, f"{TENSOR} --sequence_parallel true"),
    "pp2": (2, 1, STAGES),
    "pp2 + recompute": (2, 1, f"{STAGES} --recompute true"),
    "tp2 x pp2": (4, 1, f"{TENSOR} {STAGES}"),
    "tp2 + sp x pp2": (4, 1, f"{TENSOR} {STAGES} --sequence_parallel true"),
    "tp2 x stage2 x 2": (4, 2, f"{TENSOR} --sharding stage2"),
    "tp2 x stage3 x 2": (4, 2, f"{TENSOR} --sharding stage3"),
    "stage1 x 2 x pp2": (4, 2, f"{STAGES} --sharding stage1"),
    "dp2 x tp2": (4, 2, TENSOR),
    "dp2 x pp2": (4, 2, STAGES),
    "dp2 x stage2 x 2": (4, 4, "--sharding stage2 --sharding_parallel_degree 2"),
    "dp2 x stage3 x 2": (4, 4, "--sharding stage3 --sharding_parallel_degree 2"),
}
"""Processes, into how many shares the samples go, and the options that say what is shared."""
PAIRED = ("one", "dp2", "stage1 x 2", "stage2 x 2", "stage3 x 2", "tp2", "pp2", "tp2 x pp2")


def main() -> int:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="llama")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--pairs", nargs="?", const=",".join(PAIRED), default="", help="resume each of these under each"
    )
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="names of the table, by commas")
    options = parser.parse_args()
    chosen = options.layouts.split(",")
    start, good = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="layouts-") as folder:
        root = Path(folder)
        write_corpus(root / "corpus")
        for family in families(options.families):
            expected = trained(root, family, "one", options.steps)
            for layout in chosen:
                found = expected if layout == "one" else trained(root, family, layout, options.steps)
                good.append(report(f"{family}: {layout}", found, expected))
            if options.pairs:
                good += resume_all(root, family, options.steps, expected, options.pairs.split(","))
    print(f"{sum(good)} of {len(good)} within {BOUND:g} of one process, {time.monotonic() - start:.0f} s")
    return 0 if all(good) else 1


def families(names: str) -> list[str]:
    """Return the families to compare."""
    if names != "all":
        return names.split(",")
    from llm_run.core.registry.manager import installed

    return list(installed().families)


def resume_all(root: Path, family: str, steps: int, expected: dict[str, Any], paired: Sequence[str]) -> list[bool]:
    """Go on from the middle of each layout's run under every other layout."""
    good = []
    for source in paired:
        for target in paired:
            name = f"{family}: {source} -> {target}"
            folder, middle = root / name, f"checkpoint-{steps // 2}"
            folder.mkdir()
            shutil.copytree(root / f"{family}: {source}" / middle, folder / middle)
            run(root, family, target, steps, folder)
            found = outcome(folder, steps)
            assert list(found["losses"]) == list(range(steps // 2 + 1, steps + 1)), "other steps than were left"
            good.append(report(name, found, expected))
    return good


def trained(root: Path, family: str, layout: str, steps: int) -> dict[str, Any]:
    """Train from the start under a layout."""
    folder = root / f"{family}: {layout}"
    run(root, family, layout, steps, folder)
    return outcome(folder, steps)


def run(root: Path, family: str, layout: str, steps: int, folder: Path) -> None:
    """Run the command; its global batch is the same in every layout."""
    processes, shares, more = LAYOUTS[layout]
    words = (
        f"--task pretrain --family {family} --model_size tiny --max_length 32 --max_steps {steps} --logging_steps 1 "
        f"--save_steps {steps // 2} --learning_rate 1e-3 --adam_epsilon 1e-6 --per_device_train_batch_size 2 "
        f"--gradient_accumulation_steps {BATCH // shares // 2} --save_rehearsal false --split 100,0,0 "
        f"--disable_tqdm true --nproc_per_node {processes} {more}"
    )
    command = [sys.executable, "-m", "llm_run.core", *words.split()]
    command += ["--input_dir", str(root / "corpus"), "--output_dir", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{layout}: {done.stderr}"


def outcome(folder: Path, steps: int) -> dict[str, Any]:
    """Return losses and norms by step, and the tensors of the last checkpoint."""
    from llm_run.core.trainer.checkpoint import read_checkpoint
    from llm_run.core.trainer.metrics import read_metrics

    rows = [row for row in read_metrics(folder) if "loss" in row]
    reader = read_checkpoint(folder / f"checkpoint-{steps}").reader
    return {
        "losses": {row["step"]: row["loss"] for row in rows},
        "norms": {row["step"]: row["grad_norm"] for row in rows},
        "tensors": {name: reader.read(name) for name in reader.index},
    }


def report(name: str, found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Print a row, and say whether it is within the bound."""
    loss, norm = (
        max(abs(value / expected[kind][step] - 1) for step, value in found[kind].items())
        for kind in ("losses", "norms")
    )
    away = {key: float(np.abs(array - expected["tensors"][key]).max()) for key, array in found["tensors"].items()}
    weights, moments = (
        max(value for key, value in away.items() if key.startswith(part)) for part in ("model/", "optimizer/")
    )
    print(json.dumps({"layout": name, "loss": loss, "norm": norm, "weights": weights, "moments": moments}), flush=True)
    return max(loss, weights) < BOUND


def write_corpus(folder: Path) -> None:
    """Write token files in the seed's legacy layout: documents that count."""
    folder.mkdir()
    random = np.random.default_rng(0)
    documents = [
        (random.integers(64) + np.arange(random.integers(30, 200)) * random.integers(1, 4)) % 64 for _ in range(200)
    ]
    np.save(folder / "counts_ids.npy", np.concatenate(documents).astype(np.uint16))
    lengths = np.array([len(document) for document in documents], dtype=np.int32)
    np.savez(folder / "counts_idx.npz", lens=lengths, docs=np.arange(len(documents) + 1, dtype=np.int64))


if __name__ == "__main__":
    sys.exit(main())
