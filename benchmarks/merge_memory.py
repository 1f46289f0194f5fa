"""Measure how much memory ``--task merge_shards`` takes: beside the model's size, and beside its largest tensor.

    python benchmarks/merge_memory.py                # a llama of 220M parameters
    python benchmarks/merge_memory.py --layers 2     # a smaller one

Merges files as two tensor-parallel ranks and two stages of PaddleNLP save them (bfloat16), and a checkpoint as two
tensor-parallel ranks of ours do (float32), each in a process of its own. What the process takes before it begins
(Python, Paddle) is not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = {
    "vocab_size": 32000, "hidden_size": 1024, "num_heads": 16, "num_kv_heads": 16, "head_dim": 64, "ffn_size": 2816,
}  # fmt: skip
TENSOR, STAGES = 2, 2
IN_CHILD = """
import sys
from pathlib import Path
from llm_run.core.cli import main
import llm_run.core.convert.load, llm_run.core.convert.save, llm_run.core.trainer.checkpoint, paddle

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

paddle.ones([1]).numpy()
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of starting
assert main(sys.argv[1:]) == 0
print(memory("VmHWM") - before)
"""


def main() -> None:
    """Measure, and print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    layers = parser.parse_args().layers
    from llm_run.core.registry.manager import load_family

    family = load_family("llama")
    config = replace(family.card.sizes["tiny"], num_layers=layers, **SHAPE)
    shapes = shapes_of(family, config)
    with tempfile.TemporaryDirectory(prefix="merge-") as folder:
        root = Path(folder)
        for name, write, size in (("paddlenlp", write_rank_files, 2), ("checkpoint", write_checkpoint, 4)):
            write(root / name / "checkpoint-1", family, config, shapes)
            peak = merge(root / name / "checkpoint-1", root / f"{name}-whole")
            whole, largest = (size * act(math.prod(shape) for shape in shapes.values()) for act in (sum, max))
            print(
                f"{name}: model {whole / 1e6:.0f} MB, largest tensor {largest / 1e6:.0f} MB; merging took "
                f"{peak / 1e6:.0f} MB: {peak / whole:.2f} of the model, {peak / largest:.2f} of the largest tensor",
                flush=True,
            )


def shapes_of(family: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the model's parameters."""
    from llm_run.core.convert.load import build_empty
    from llm_run.core.convert.logical import parameters

    return {name: tuple(parameter.shape) for name, parameter in parameters(build_empty(family, config)).items()}


def write_rank_files(folder: Path, family: Any, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write ``model_state.tp00_pp00.pdparams`` and its kin; every value is its tensor's number."""
    from llm_run.core.convert.weights import expand
    from llm_run.core.parallel.tensor.parts import find_parts

    write_beside(folder, config)
    parts = find_parts(shapes, config, family.sharding_map(config), degree=TENSOR, index=0)
    files: dict[str, dict[str, np.ndarray]] = {}
    steps = expand(family.weight_map(config, "paddlenlp"), config.num_layers)
    for number, step in enumerate(steps):
        layer = step.ours[0].split(".")[1] if step.ours[0].startswith("blocks.") else None
        stage = STAGES - 1 if layer is None and "embed" not in step.ours[0] else 0
        stage = stage if layer is None else int(layer) * STAGES // config.num_layers
        for rank in range(TENSOR):
            array = np.full(parts[step.ours[0]].local_shape, number, np.uint16)
            files.setdefault(f"model_state.tp{rank:02d}_pp{stage:02d}.pdparams", {})[step.theirs[0]] = array
    for name, tensors in files.items():
        with (folder / name).open("wb") as file:
            pickle.dump(tensors, file, protocol=4)


def write_checkpoint(folder: Path, family: Any, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write a checkpoint as two ranks do."""
    from dataclasses import asdict

    from llm_run.core.parallel.tensor.parts import find_parts
    from llm_run.core.trainer.manifest import write_manifest
    from llm_run.core.trainer.snapshot import TrainerState
    from llm_run.core.trainer.storage import Storage
    from llm_run.core.trainer.tensor_files import OwnedPart, index_to_json, merged, owned_blocks, write_tensors

    write_beside(folder.parent, config)
    folder.mkdir()
    storage, indexes, files = Storage(), [], []
    for rank in range(TENSOR):
        parts = find_parts(shapes, config, family.sharding_map(config), degree=TENSOR, index=rank)
        held = {f"model/{name}": part for name, part in parts.items()}
        arrays = {name: np.full(part.local_shape, rank, np.float32) for name, part in held.items()}
        places = {name: OwnedPart(part, (part.is_owner,)) for name, part in held.items()}
        blocks, index = owned_blocks(f"model-{rank:05d}.safetensors", arrays, places)
        indexes.append(index)
        files.append(write_tensors(storage, folder / f"model-{rank:05d}.safetensors", blocks))
    identity = {"task": "pretrain", **{f"model.{name}": value for name, value in config.to_fields().items()}}
    texts = {
        "index.json": index_to_json(merged(indexes)),
        "trainer.json": {"state": asdict(TrainerState(step=1)), "identity": identity},
    }
    files += [storage.write(folder / name, [json.dumps(text).encode()]) for name, text in texts.items()]
    write_manifest(storage, folder, files, {"step": 1})


def write_beside(folder: Path, config: Any) -> None:
    """Write a configuration, a tokenizer, and what a run without one says."""
    from tokenizers import Tokenizer, models

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_fields()))
    Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    told = {name: {"value": None} for name in ("tokenizer_name_or_path", "model_name_or_path", "chat_template")}
    (folder / "run.json").write_text(json.dumps({"options": told}))


def merge(source: Path, target: Path) -> int:
    """Merge in a process of its own; return the bytes that it took at most beyond those it began with."""
    words = ["--task", "merge_shards", "--model_name_or_path", str(source), "--output_path", str(target)]
    done = subprocess.run(
        [sys.executable, "-c", IN_CHILD, *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
