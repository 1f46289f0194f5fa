"""Speed of two ranks with one thread each against one process with two threads: a 34M llama, 4 x 512 tokens a step.

    python benchmarks/data_parallel_speed.py [--rounds 3] [--steps 6]

The two take turns, since a machine is not as fast at all times. Prints tokens/s of the fastest steps of each round, and
the median of the ratios. 0 where it is 0.85 or more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from layouts import write_corpus

BOUND = 0.85
SHAPE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8192, "hidden_size": 512,
    "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 1408,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
SIDES = {
    "one process, two threads": "--threads 2 --per_device_train_batch_size 4",
    "two ranks, a thread each": "--threads 1 --nproc_per_node 2 --per_device_train_batch_size 2",
}


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory(prefix="dp-speed-") as folder:
        root = Path(folder)
        (root / "model").mkdir()
        (root / "model" / "config.json").write_text(json.dumps(SHAPE))
        write_corpus(root / "corpus")
        for turn in range(options.rounds):
            alone, shared = (speed(root, f"{turn} {name}", words, options.steps) for name, words in SIDES.items())
            ratios.append(shared / alone)
            print(f"round {turn + 1}: {alone:.0f} and {shared:.0f} tokens/s, ratio {ratios[-1]:.2f}", flush=True)
    found = statistics.median(ratios)
    print(f"two ranks with a thread each make {found:.2f} of what one process with two threads makes")
    return 0 if found >= BOUND else 1


def speed(root: Path, name: str, more: str, steps: int) -> float:
    """Train, and return the tokens/s of the fastest step; the first ones fill caches and memory pools."""
    words = (
        f"--task pretrain --max_steps {steps} --max_length 512 --logging_steps 1 --save_strategy no "
        f"--no_save_rehearsal --split 100,0,0 --disable_tqdm {more}"
    )
    folders = ["--model_name_or_path", "model", "--input_dir", "corpus", "--output_dir", name]
    paths = [word if word.startswith("--") else str(root / word) for word in folders]
    command = [sys.executable, "-m", "llm_run.core", *words.split(), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()]
    return float(max(row["tokens_per_second"] for row in rows if "tokens_per_second" in row))


if __name__ == "__main__":
    sys.exit(main())
