"""Peak memory of each rank against what ``llm-run plan`` says of it: a llama of 134M parameters, random weights.

    python benchmarks/plan_memory.py                          # one process, tp2, pp2, stage 3 over 2 and over 4
    python benchmarks/plan_memory.py --layouts tp2,pp2 --steps 2

Every rank is started by hand, so that its peak (VmHWM of /proc) can be read when it ends; it is that of the whole run,
from the import of Paddle to the written model directory. Prints a row a rank, and how much less than one process a
rank of stage 3 holds: in counted bytes of parameters and optimizer, and in measured memory without that of an imported
Paddle. 0 where every peak is within 15 % of the plan.

Source of the shape: Lialin et al. 2023, arXiv:2307.05695, table 2 (LLaMA 130M).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from layouts import write_corpus

from llm_run.core.launch.environment import cpu_vendor, wanted
from llm_run.core.parallel.rendezvous import free_port

BOUND = 0.15
SHAPE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12, "intermediate_size": 2048,
    "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
LAYOUTS = {
    "one": (1, ""),
    "dp2": (2, ""),
    "tp2": (2, "--tensor_parallel_degree 2"),
    "pp2": (2, "--pipeline_parallel_degree 2"),
    "sep2": (2, "--sep_parallel_degree 2"),
    "stage1 x 2": (2, "--sharding stage1"),
    "stage2 x 2": (2, "--sharding stage2"),
    "stage3 x 2": (2, "--sharding stage3"),
    "stage3 x 4": (4, "--sharding stage3"),
    "tp2 x stage3 x 2": (4, "--tensor_parallel_degree 2 --sharding stage3"),
}
"""Processes, and the options that say what is shared."""
ASKED = ("one", "tp2", "pp2", "stage3 x 2", "stage3 x 4")
PROGRAM = """
import json, sys
from llm_run.core.cli import main
from llm_run.core.launch.resident import peak_resident_bytes
from llm_run.core.trainer.step import TrainStep

peaks, step = [], TrainStep.run

def noting(*arguments):
    peaks.append(peak_resident_bytes())
    return step(*arguments)

TrainStep.run = noting
status = main(sys.argv[1:])
print(json.dumps([peaks[0], peak_resident_bytes()]))
sys.exit(status)
"""
Peaks = list[tuple[int, int]]
LIMIT = 1800
"""Seconds of one run."""


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", default=",".join(ASKED), help=f"of {', '.join(LAYOUTS)}, by commas")
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    good, found = True, {}
    print(f"{'layout':18} rank  planned GB  measured GB  planned / measured", flush=True)
    with tempfile.TemporaryDirectory(prefix="plan-memory-") as folder:
        root = Path(folder)
        (root / "model").mkdir()
        (root / "model" / "config.json").write_text(json.dumps(SHAPE))
        write_corpus(root / "corpus")
        for layout in options.layouts.split(","):
            plan, peaks = planned(root, layout, options.steps), measured(root, layout, options.steps)
            found[layout] = plan, peaks
            for rank, (_, peak) in zip(plan["ranks"], peaks, strict=True):
                ratio = rank["peak_memory_bytes"] / peak
                good = good and abs(ratio - 1) <= BOUND
                row = f"{rank['peak_memory_bytes'] / 1e9:10.2f}  {peak / 1e9:11.2f}  {ratio:18.2f}"
                print(f"{layout:18} {rank['rank']:4}  {row}", flush=True)
    if {"one", "stage3 x 4"} <= found.keys():
        compare(*found["one"], *found["stage3 x 4"])
    return 0 if good else 1


def compare(plan: dict[str, Any], peaks: Peaks, shared: dict[str, Any], shared_peaks: Peaks) -> None:
    """Print how much of one process's memory a rank of four needs that share everything."""
    held, most = (
        max(rank["parameter_bytes"] + rank["optimizer_bytes"] for rank in one["ranks"]) for one in (plan, shared)
    )
    base = plan["baseline_bytes"]
    print(f"an imported Paddle: {base / 1e9:.2f} GB")
    print(f"stage3 x 4, parameters and optimizer: {most / 1e6:.0f} MB of {held / 1e6:.0f}, {most / held:.3f}")
    for index, when in enumerate(("peak before the first step", "peak of the run")):
        peak, alone = (max(pair[index] for pair in pairs) - base for pairs in (shared_peaks, peaks))
        print(f"stage3 x 4, {when}, without Paddle: {peak / 1e6:.0f} MB of {alone / 1e6:.0f}, {peak / alone:.3f}")


def planned(root: Path, layout: str, steps: int) -> dict[str, Any]:
    """Return what ``llm-run plan`` says."""
    processes, more = LAYOUTS[layout]
    words = [*request(root, layout, steps), *more.split(), "--nproc_per_node", str(processes), "--format", "json"]
    command = [sys.executable, "-m", "llm_run.core", "plan", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def measured(root: Path, layout: str, steps: int) -> Peaks:
    """Train, and return the peaks of each rank in bytes: when the model and the optimizer are made, and in all."""
    processes, more = LAYOUTS[layout]
    words = [*request(root, layout, steps), *more.split()]
    common = environment()
    if processes > 1:
        common |= {
            "PADDLE_TRAINERS_NUM": str(processes), "PADDLE_MASTER": f"127.0.0.1:{free_port()}", "LLM_RUN_JOB": layout,
        }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], env=common | {"PADDLE_TRAINER_ID": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    try:
        said = [rank.communicate(timeout=LIMIT) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(error for _, error in said)
    return [tuple(json.loads(output.splitlines()[-1])) for output, _ in said]


def request(root: Path, layout: str, steps: int) -> list[str]:
    """Return the arguments that all layouts have."""
    words = (
        f"--task pretrain --max_steps {steps} --max_length 256 --per_device_train_batch_size 2 --logging_steps 1 "
        "--gradient_accumulation_steps 2 --save_strategy no --no_save_rehearsal --split 100,0,0 --disable_tqdm"
    )
    folders = ["--model_name_or_path", "model", "--input_dir", "corpus", "--output_dir", f"out {layout}"]
    paths = [word if word.startswith("--") else str(root / word) for word in folders]
    return [*words.split(), *paths]


def environment() -> dict[str, str]:
    """Return the environment of a rank, settled, so that none starts itself anew."""
    settings = wanted(threads=1, training=True, vendor=cpu_vendor())
    return dict(os.environ) | {setting.name: setting.value for setting in settings}


if __name__ == "__main__":
    sys.exit(main())
