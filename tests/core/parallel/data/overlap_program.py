"""Run by two ranks: gradients of two micro-batches, summed behind the backward pass and while it goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import paddle

from llm_run.core.ops import AttentionMask, linear_cross_entropy
from llm_run.core.parallel import overlap
from llm_run.core.parallel.data_parallel import Replicated
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import build_part
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.registry.manager import load_family

BUCKET = 40_000
FAMILY = load_family("llama")
CONFIG = FAMILY.card.sizes["tiny-tied"]


def summed(mesh: Mesh, *, overlaps: bool) -> tuple[dict[str, np.ndarray], int]:
    """Return the sums of gradients, and how many buckets had been sent when the last backward pass was over."""
    paddle.seed(3)
    model = build_part(FAMILY, CONFIG, mesh, None).model
    holding = Replicated(model, mesh, overlaps=overlaps)
    for micro in range(2):
        ids = np.random.default_rng([mesh.rank, micro]).integers(0, CONFIG.vocab_size, [2, 9])
        positions_BS = paddle.arange(8).unsqueeze(0).expand([2, 8])
        hidden = model(paddle.to_tensor(ids[:, :-1]), positions_BS, AttentionMask())
        loss, _ = linear_cross_entropy(hidden, model.head, paddle.to_tensor(ids[:, 1:]))
        holding.backward(loss / 16, is_last=micro == 1)
    sent = 0 if holding._overlap is None else len(holding._overlap._under_way)
    holding.reduce()
    found = {name: gradient.numpy() for name, gradient in holding.gradients().items()}
    holding.drop_gradients()
    assert not holding.gradients()
    return found, sent


def main(result: Path) -> None:
    """Compare."""
    small = overlap.buckets
    overlap.buckets = lambda sizes: small(sizes, most=BUCKET)  # type: ignore[assignment]
    with open_mesh(ParallelPlan(dp=2), timeout_s=60) as mesh:
        plain, none = summed(mesh, overlaps=False)
        first, sent = summed(mesh, overlaps=True)
        second, _ = summed(mesh, overlaps=True)
        chosen = Replicated(build_part(FAMILY, CONFIG, mesh, None).model, mesh)._overlap is not None
        mesh.meet("the end")
    result.write_text(json.dumps({
        "names": plain.keys() == first.keys() == second.keys(),
        "as behind": all((first[name] == plain[name]).all() for name in plain),
        "as before": all((first[name] == second[name]).all() for name in plain),
        "sent": [none, sent], "on gloo": chosen, "any": bool(np.abs(plain["norm.weight"]).max() > 0),
    }))  # fmt: skip


main(Path(sys.argv[1]))
