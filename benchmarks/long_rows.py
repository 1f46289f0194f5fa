"""Train one step on one long row, alone and with ranks that share it, and see what each process needs for it.

    python benchmarks/long_rows.py                                   # 8192 tokens, on one process and on two
    python benchmarks/long_rows.py --length 16384 --ranks 1,2,4

Prints for each number of ranks: the loss, the seconds of a forward and backward pass (of the second one), the largest
memory of a rank, and by how much it grew in the step beyond the model and its gradients: what the row itself needs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Start the ranks, one number of them after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192, help="tokens of the row")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size of the llama")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, by commas")
    parser.add_argument("--rank", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        return compute(options, Path(options.rank))
    for count in map(int, options.ranks.split(",")):
        print(json.dumps({"ranks": count} | started(count)), flush=True)


def started(count: int) -> dict[str, float]:
    """Run so many ranks, and return what the one says that needed most."""
    from llm_run.core.parallel.rendezvous import free_port

    with tempfile.TemporaryDirectory(prefix="long-rows-") as folder:
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if count > 1:
            environment |= {"PADDLE_TRAINERS_NUM": str(count), "PADDLE_MASTER": f"127.0.0.1:{free_port()}"}
        files = [Path(folder) / f"{rank}.json" for rank in range(count)]
        processes = [
            subprocess.Popen(
                [sys.executable, *sys.argv, "--rank", str(file)],
                env=environment | ({"PADDLE_TRAINER_ID": str(rank)} if count > 1 else {}),
            )
            for rank, file in enumerate(files)
        ]
        assert [process.wait() for process in processes] == [0] * count
        said: list[dict[str, float]] = [json.loads(file.read_text()) for file in files]
    return max(said, key=lambda one: one["peak_mb"])


def compute(options: argparse.Namespace, result: Path) -> None:
    """Be one rank: two passes over the row, and a look at the memory."""
    import numpy as np

    from llm_run.core.data.collate import collate
    from llm_run.core.data.sample import IGNORED, Sample
    from llm_run.core.parallel.collectives import all_reduce
    from llm_run.core.parallel.join import open_mesh
    from llm_run.core.parallel.membership import find_membership
    from llm_run.core.parallel.model_part import build_part
    from llm_run.core.parallel.plan import ParallelPlan
    from llm_run.core.registry.manager import load_family
    from llm_run.core.trainer.objective import NextToken
    from llm_run.core.trainer.passes import WholeModel, final_hidden
    from llm_run.core.trainer.randomness import seed_all

    family = load_family("llama")
    config = dataclasses.replace(
        family.card.sizes["tiny"], hidden_size=options.hidden, ffn_size=options.hidden * 11 // 4 // 16 * 16,
        num_layers=options.layers, num_heads=8, num_kv_heads=4, head_dim=options.hidden // 8,
        max_positions=options.length,
    )  # fmt: skip
    ids = np.random.default_rng(0).integers(3, config.vocab_size, [options.length])
    whole = np.ones(len(ids), dtype=np.int32)
    batch = collate([Sample(ids, np.append(ids[1:], IGNORED), whole, whole == 0)], config, 0)
    membership = find_membership(os.environ)
    with open_mesh(ParallelPlan(sep=1 if membership is None else membership.size), timeout_s=600) as mesh:
        seed_all(1)
        model = build_part(family, config, mesh, None).model
        (loss_of,) = NextToken().losses(WholeModel(model), [batch], list)

        def step() -> tuple[Any, float]:
            start = time.perf_counter()
            loss, _ = loss_of(final_hidden(model, batch))
            loss.backward()
            return all_reduce(loss.detach(), mesh.group("sep")), time.perf_counter() - start

        for parameter in model.parameters():
            parameter.grad = parameter * 0.0
        before = memory("VmRSS")
        loss, _ = step()
        peak = memory("VmHWM")
        _, seconds = step()
        mesh.meet("the end")
    found = {"loss": float(loss) / batch.num_supervised, "seconds": round(seconds, 2)}
    result.write_text(json.dumps(found | {"peak_mb": round(peak), "row_mb": round(peak - before)}))


def memory(name: str) -> float:
    """Return a figure of this process in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    main()
