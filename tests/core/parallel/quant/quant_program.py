"""Run by two ranks: they quantize every family together, and each some of the cases alone."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from cases import METHODS, case, quantize, write

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import parameters
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.quant.layer import quantized_layers
from llm_run.core.quant.quantize import Quantized
from llm_run.core.quant.ranks import ALONE, Ranks
from llm_run.core.registry.manager import installed


def told(quantized: Quantized) -> dict[str, Any]:
    """Return what a report says."""
    return {"layers": [asdict(each) for each in quantized.layers], "comparison": asdict(quantized.comparison)}


def kept(model: CausalLM) -> dict[str, list[str]]:
    """Return which layers have their integers here, and which parameters have their values."""
    return {
        "integers": [name for name, layer in quantized_layers(model).items() if layer.quantized.codes.size],
        "values": [name for name, parameter in parameters(model).items() if parameter._is_initialized()],
    }


def exchanged(ranks: Ranks) -> dict[str, Any]:
    """Return what becomes of arrays that ranks have of each other."""
    random = np.random.default_rng(ranks.index)
    notes = [np.full(3, number, dtype=np.float32) for number in ranks.dealt(range(5))]
    own = [random.integers(0, 9, [2 + ranks.index, 3]).astype(np.int8)] if ranks.index else []
    rows = ranks.by_rows(70, lambda some: [np.arange(70)[some], np.arange(140).reshape(70, 2)[some]])
    return {
        "notes": [note[0].item() for note in ranks.in_order(notes)],
        "none": [len(share) for share in ranks.gather([])],
        "unequal": [[array.tolist() for array in share] for share in ranks.gather(own)],
        "fetched": [array.tolist() for array in ranks.fetch(own, 1)],
        "rows": [array.tolist() for array in rows],
        "few rows": ranks.by_rows(1, lambda some: [np.arange(1)[some]])[0].tolist(),
        "total": ranks.total(None if ranks.index else paddle.ones([2], dtype="float64"), [2]).tolist(),
    }


def main(result: Path) -> None:
    """Quantize every family in every way."""
    found: dict[str, Any] = {}
    with open_mesh(ParallelPlan(mp=2), timeout_s=60) as mesh:
        ranks = Ranks(mesh.group("mp"))
        for number, (name, method) in enumerate((name, method) for name in installed().families for method in METHODS):
            chosen, key = case(name, method), f"{name}-{method}"
            shared = quantize(chosen, ranks)
            found[key] = {"together": told(shared), "kept": kept(shared.model)}
            write(chosen, shared.model, ranks, result.parent / "together" / key)
            if number % 2 == mesh.rank:
                alone = quantize(chosen, ALONE)
                found[key]["alone"] = told(alone)
                write(chosen, alone.model, ALONE, result.parent / "alone" / key)
        found["exchanged"] = exchanged(ranks)
        chosen = case("llama", "gptq")
        found["one batch"] = told(quantize(chosen, ranks, evaluation=1))["comparison"]
        found["one batch alone"] = told(quantize(chosen, ALONE, evaluation=1))["comparison"]
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
