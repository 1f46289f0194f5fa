"""Train the same steps under every layout of ranks and compare them with one process; resume each layout's checkpoint
under every other.

    python benchmarks/layouts.py                             # the tiny llama, 20 steps, every layout
    python benchmarks/layouts.py --layouts "tp2;dp2 x pp2"    # these layouts
    python benchmarks/layouts.py --families all              # every installed family, the plain layouts
    python benchmarks/layouts.py --layouts one --pairs       # resume layouts from each other
    python benchmarks/layouts.py --families opt --defects    # mistakes must show, too
    python benchmarks/layouts.py ... > rows                  # layout_page.py makes docs/layouts.md of such files

Prints a row a layout: the largest relative difference of loss and gradient norm over all steps, and the largest
difference of a parameter and of a moment in the last checkpoint. 0 where losses and parameters stay within 1e-5, where
runs that go on have the checkpoint to the bit and take the same samples, and where mistakes (``layout_defects.py``)
exceed 1e-5. Processes are started once for each number of them (``layout_ranks.py``) and train everything in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from layout_defects import DEFECTS
from layout_outcome import distances, outcome

BOUND = 1e-5
BATCH, LAYERS = 8, 4
STAGE_OPTION = "--pipeline_parallel_degree"
TENSOR, STAGES, SEP = "--tensor_parallel_degree 2", f"{STAGE_OPTION} 2", "--sep_parallel_degree 2"
PLAIN = {
    "one": (1, 1, ""),
    "dp2": (2, 2, ""),
    "stage1 x 2": (2, 2, "--sharding stage1"),
    "stage2 x 2": (2, 2, "--sharding stage2"),
    "stage3 x 2": (2, 2, "--sharding stage3"),
    "tp2": (2, 1, TENSOR),
    "tp2 + sp": (2, 1, f"{TENSOR} --sequence_parallel true"),
    "tp4": (4, 1, "--tensor_parallel_degree 4"),
    "pp2": (2, 1, STAGES),
    "pp4, interleaved": (4, 1, "--pipeline_parallel_degree 4 --virtual_pp_degree 2"),
    "sep2": (2, 1, SEP),
    "tp2 x pp2": (4, 1, f"{TENSOR} {STAGES}"),
    "tp2 x stage2 x 2": (4, 2, f"{TENSOR} --sharding stage2"),
    "dp2 x pp2": (4, 2, STAGES),
}
"""Of every family: processes, into how many shares the samples go, and the options that say what is shared."""
MORE = {
    "pp2 + recompute": (2, 1, f"{STAGES} --recompute true"),
    "tp2 + sp x pp2": (4, 1, f"{TENSOR} {STAGES} --sequence_parallel true"),
    "tp2 x stage3 x 2": (4, 2, f"{TENSOR} --sharding stage3"),
    "stage1 x 2 x pp2": (4, 2, f"{STAGES} --sharding stage1"),
    "dp2 x tp2": (4, 2, TENSOR),
    "sep2 x tp2": (4, 1, f"{SEP} {TENSOR}"),
    "sep2 x stage2 x 2": (4, 2, f"{SEP} --sharding stage2"),
    "dp2 x stage2 x 2": (4, 4, "--sharding stage2 --sharding_parallel_degree 2"),
    "dp2 x stage3 x 2": (4, 4, "--sharding stage3 --sharding_parallel_degree 2"),
}
"""The same, of one family only."""
LAYOUTS = PLAIN | MORE
DEEP = {"pp4, interleaved": 8}
"""Layers, where the tiny models have too few for the pieces; compared with one process of as many."""
PAIRED = ("one", "dp2", "stage1 x 2", "stage2 x 2", "stage3 x 2", "tp2", "pp2", "tp2 x pp2", "sep2")
OPTIMIZER = "--learning_rate 1e-3 --adam_epsilon 0.1"
"""With an epsilon near 0, AdamW moves a parameter by about the learning rate however small its gradient is: rounding is
amplified until two right programs differ. With this one, parameters move in proportion to their gradients."""
LIMIT = 3600
"""Seconds that all jobs of one number of processes may take."""


def main() -> int:
    """Compare, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="llama", help="by commas, or all")
    parser.add_argument("--steps", type=int, default=20)
    pairs_help = "resume each of these under each, in the first family"
    parser.add_argument("--pairs", nargs="?", const=";".join(PAIRED), default="", help=pairs_help)
    parser.add_argument("--sources", default="", help="of the pairs, only those that begin with one of these")
    parser.add_argument("--defects", action="store_true", help="train with mistakes, too, in the first family")
    parser.add_argument("--layouts", default="", help="names by semicolons; default: plain ones, of one family all")
    options = parser.parse_args()
    chosen, paired = families(options.families), names_of(options.pairs)
    layouts = names_of(options.layouts) or list(LAYOUTS if len(chosen) == 1 else PLAIN)
    sources = names_of(options.sources) or paired
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="layouts-") as folder:
        work = Work(Path(folder), options.steps, saves_middle=bool(paired))
        rows = work.compare(chosen, list(dict.fromkeys([*layouts, *sources])))
        pairs = work.resume(chosen[0], sources, paired)
        spoilt = work.spoil(chosen[0]) if options.defects else []
    good = [row["good"] for row in (*rows, *pairs, *spoilt) if "good" in row]
    taken = {"seconds": round(time.monotonic() - start), "cpu_seconds": round(cpu_seconds())}
    print(json.dumps({"good": sum(good), "of": len(good), "bound": BOUND, "steps": options.steps, **taken}))
    return 0 if all(good) else 1


def cpu_seconds() -> float:
    """Return what this process and those that it has started have computed."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def names_of(text: str) -> list[str]:
    """Return the names in a list; the name of a layout may have a comma."""
    return [name for name in text.split(";") if name]


def families(names: str) -> list[str]:
    """Return the families to compare."""
    if names != "all":
        return names.split(",")
    from llm_run.core.registry.manager import installed

    return list(installed().families)


class Work:
    """A folder of runs."""

    def __init__(self, root: Path, steps: int, *, saves_middle: bool) -> None:
        self.root, self.steps = root, steps
        self.save_steps = steps // 2 if saves_middle else steps
        self._expected: dict[str, dict[str, Any]] = {}
        write_corpus(root / "corpus")

    def compare(self, names: Sequence[str], layouts: Sequence[str]) -> list[dict[str, Any]]:
        """Train every family under every layout, and hold each against one process."""
        wanted = [(family, layout) for family in names for layout in layouts]
        refused = {pair: said for pair in wanted if (said := refusal(self.root, *pair))}
        jobs = [self.job(*pair, f"{pair[0]}: {pair[1]}") for pair in wanted if pair not in refused]
        depths = {(job["family"], job["layers"]) for job in jobs}
        jobs += [self.job(family, "one", f"{family}: {depth} layers", layers=depth) for family, depth in sorted(depths)]
        self.run(jobs)
        for (family, layout), reason in refused.items():
            print(json.dumps({"family": family, "layout": layout, "refused": reason}), flush=True)
        return [self.row(*pair, f"{pair[0]}: {pair[1]}") for pair in wanted if pair not in refused]

    def resume(self, family: str, sources: Sequence[str], targets: Sequence[str]) -> list[dict[str, Any]]:
        """Go on from the middle of each layout's run under every other layout."""
        jobs, middle = [], f"checkpoint-{self.steps // 2}"
        pairs = [(source, target) for source in sources for target in targets]
        for source, target in pairs:
            name = f"{family}: {source} -> {target}"
            shutil.copytree(self.root / f"{family}: {source}" / middle, self.root / name / middle)
            jobs.append(self.job(family, target, name))
        self.run(jobs)
        return [self.row(family, target, f"{family}: {source} -> {target}", source) for source, target in pairs]

    def spoil(self, family: str) -> list[dict[str, Any]]:
        """Train with each mistake under the layout in which it matters."""
        self.run([self.job(family, layout, defect, defect=defect) for defect, layout in DEFECTS.items()])
        return [self.row(family, layout, defect, defect=defect) for defect, layout in DEFECTS.items()]

    def job(self, family: str, layout: str, name: str, *, layers: int = 0, defect: str = "") -> dict[str, Any]:
        """Return what the ranks are told of one run."""
        folder = self.root / name
        found = [*words(self.root, family, layout, self.steps, folder), "--save_steps", str(self.save_steps)]
        depth = layers or DEEP.get(layout, LAYERS)
        known = {"words": found, "folder": str(folder), "layers": depth, "family": family, "defect": defect}
        return known | {"size": LAYOUTS[layout][0]}

    def run(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Run jobs, those of the same number of processes in the same ones."""
        for size in sorted({job["size"] for job in jobs}):
            path = self.root / f"jobs-{size}.json"
            path.write_text(json.dumps([job for job in jobs if job["size"] == size]))
            launch(path, size)

    def row(self, family: str, layout: str, name: str, source: str = "", defect: str = "") -> dict[str, Any]:
        """Print how far a run is from one process, and return it."""
        from layout_ranks import same_again

        known = f"{family}: {DEEP.get(layout, LAYERS)} layers"
        expected = self._expected.setdefault(known, {}) or outcome(self.root / known, self.steps)
        self._expected[known] = expected
        found = outcome(self.root / name, self.steps)
        first = self.steps // 2 if source else 0
        assert list(found["losses"]) == list(range(first + 1, self.steps + 1)), f"{name}: other steps than were left"
        row = {
            "family": family,
            "layout": layout,
            **({"source": source} if source else {}),
            **({"defect": defect} if defect else {}),
            **distances(found, expected),
        }
        row["samples"] = found["asked"] == list(range(first * BATCH, self.steps * BATCH))
        row["same"] = not source or same_again(self.root / name, first)
        is_near = max(row["loss"], row["weights"]) < BOUND
        row["good"] = not is_near if defect else is_near and row["samples"] and row["same"]
        print(json.dumps(row), flush=True)
        return row


def words(root: Path, family: str, layout: str, steps: int, folder: Path) -> list[str]:
    """Return the command's words; the global batch is the same in every layout.

    A pipeline gets it in as many micro-batches as it has ranks at the most, the others in two.
    """
    _, shares, more = LAYOUTS[layout]
    rows = 2 if STAGE_OPTION in more else BATCH // shares // 2
    text = (
        f"--task pretrain --family {family} --model_size tiny --max_length 32 --max_steps {steps} --logging_steps 1 "
        f"{OPTIMIZER} --per_device_train_batch_size {rows} "
        f"--gradient_accumulation_steps {BATCH // shares // rows} --save_rehearsal false --split 100,0,0 "
        f"--disable_tqdm true {more}"
    )
    return [*text.split(), "--input_dir", str(root / "corpus"), "--output_dir", str(folder)]


def refusal(root: Path, family: str, layout: str) -> str:
    """Return why a family cannot be trained under a layout; empty where it can."""
    from dataclasses import replace

    from llm_run.core.config.flags import parse
    from llm_run.core.config.resolve import resolve
    from llm_run.core.parallel.degrees import Shape, check_plan, fill_plan
    from llm_run.core.registry.manager import load_family

    size = LAYOUTS[layout][0]
    config, _ = resolve(parse(words(root, family, layout, 2, root)))
    model = replace(load_family(family).card.sizes["tiny"], num_layers=DEEP.get(layout, LAYERS))
    plan = fill_plan(config.launch, size)
    problems = check_plan(plan, size, ("--nproc_per_node", str(size)), Shape.of(model, config))
    return "; ".join(f"{problem.key} {problem.value} {problem.reason}" for problem in problems)


def launch(jobs: Path, size: int) -> None:
    """Run ``layout_ranks.py`` in so many processes; where one fails, end the others."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOG_minloglevel": "2"}
    if size > 1:
        environment |= {
            "PADDLE_TRAINERS_NUM": str(size),
            "PADDLE_MASTER": f"127.0.0.1:{port}",
            "LLM_RUN_JOB": str(jobs),
        }
    command = [sys.executable, str(Path(__file__).with_name("layout_ranks.py")), str(jobs)]
    logs = [jobs.with_suffix(f".{rank}.log") for rank in range(size)]
    ranks = [
        subprocess.Popen(
            command, env=environment | {"PADDLE_TRAINER_ID": str(rank)}, stdout=log.open("w"), stderr=subprocess.STDOUT
        )
        for rank, log in enumerate(logs)
    ]
    until = time.monotonic() + LIMIT
    try:
        while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
            assert time.monotonic() < until, f"ranks of {jobs.name} take more than {LIMIT} s"
            time.sleep(0.1)
        failed = next((log for rank, log in zip(ranks, logs, strict=True) if rank.poll()), None)
        assert failed is None, f"a rank failed:\n{failed and failed.read_text()[-6000:]}"
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


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
