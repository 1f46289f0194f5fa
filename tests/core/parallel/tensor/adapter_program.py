"""Run by two or four ranks: adapters on models that are split."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
from adapter_cases import Found, chosen, compute
from cases import batch, cases, scrambled

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import fill
from llm_run.core.convert.logical import parameters
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.tensor.build import whole_parameters


def joined(model: CausalLM, found: Found) -> Found:
    """Put the ranks' parts together, by handing them to the model as if they were its values."""
    with paddle.no_grad():
        whole: Found = {"loss": found["loss"]}
        for kind in ("drawn", "gradient"):
            for name, parameter in parameters(model).items():
                if f"{kind} {name}" in found:
                    fill(parameter, found[f"{kind} {name}"])
            whole |= {f"{kind} {name}": values for name, values in whole_parameters(model) if f"{kind} {name}" in found}
    return whole


def main(result: Path, size: int) -> None:
    """Compute all with and without sequence parallelism."""
    found: Found = {}
    with open_mesh(ParallelPlan(mp=size), timeout_s=60) as mesh:
        for sequence in (False, True):
            this = replace(mesh, plan=replace(mesh.plan, sequence_parallel=sequence))
            for name, kind in chosen(list(cases()), size):
                case = cases()[name]
                model, here = compute(case, batch(case[1]), scrambled, kind, this)
                found |= {f"{name} {kind} {sequence} {key}": value for key, value in joined(model, here).items()}
        mesh.meet("the end")
    np.savez(result.with_suffix(".npz"), **found)
    result.write_text(json.dumps({}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
