"""Run by two ranks that share rows: attention, a model, dropout and evaluation, each beside one process."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from cases import ATTENTION, Case, batch_of, pairs_of, short_pairs_of, sparse_batch

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.causal_lm import CausalLM
from llm_run.core.data.sample import Batch
from llm_run.core.ops import attention
from llm_run.core.parallel.collectives import all_gather, all_reduce
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.plan import ParallelPlan
from llm_run.core.parallel.sep.attention import SharedRowMask
from llm_run.core.parallel.sep.model import share_rows
from llm_run.core.registry.manager import installed, load_family
from llm_run.core.trainer.embedding_noise import EmbeddingNoise
from llm_run.core.trainer.evaluate import score_batches
from llm_run.core.trainer.inputs import to_inputs
from llm_run.core.trainer.objective import NextToken, Objective
from llm_run.core.trainer.passes import WholeModel, final_hidden
from llm_run.core.trainer.preference import Preference
from llm_run.core.trainer.preference_loss import PreferenceLoss
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.recompute import apply_recompute

Change = Callable[[CausalLM, Any], None]


def nothing(model: CausalLM, family: Any) -> None:
    """Leave a model as it is."""


def shared(case: Case, mesh: Mesh) -> dict[str, float]:
    """Return how far outputs and gradients of shared rows are from those of whole rows."""
    group = mesh.group("sep")
    mask, pulled = case.mask(), paddle.to_tensor(case.pulled)
    whole = [paddle.to_tensor(x, stop_gradient=False) for x in case.inputs]
    out = attention(*whole, mask, slopes_N=case.slopes_N)
    (out * pulled).sum().backward()
    parts = [paddle.to_tensor(np.split(x, 2, 1)[group.index], stop_gradient=False) for x in case.inputs]
    own = attention(*parts, SharedRowMask(mask, group), slopes_N=case.slopes_N)
    (own * pulled.split(2, axis=1)[group.index]).sum().backward()
    away = {"out": distance(all_gather(own, group, dim=1), out)}
    for name, part, expected in zip("qkv", parts, whole, strict=True):
        away[name] = distance(all_gather(part.grad, group, dim=1), expected.grad)
    return away


def distance(found: Any, expected: Any) -> float:
    """Return the largest difference of two tensors."""
    return float((found - expected).abs().max())


def trained(
    name: str, mesh: Mesh, change: Change = nothing, *, batches: Callable[[Any], Batch] = batch_of,
    objective: Objective | None = None, **changes: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return the loss of a batch over the tokens of all ranks, and the gradients, by parameter.

    Args:
        name: of the family, whose tiny model is trained.
        mesh: whole, or shared rows.
        change: what is done to the model before.
        batches: makes the batch.
        objective: of training; by default the next token.
        changes: of its configuration.
    """
    family = load_family(name)
    config = dataclasses.replace(family.card.sizes["tiny"], **changes)
    seed_all(3)
    model = share_rows(family.build_model(config), mesh)
    model.train()
    change(model, family)
    seed_all(3, 0, mesh.index("sep"))
    batch = batches(config)
    (loss_of,) = (objective or NextToken()).losses(WholeModel(model), [batch], list)
    loss, _ = loss_of(final_hidden(model, batch))
    loss.backward()
    sums = {"loss": loss.detach()} | {
        key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None
    }
    return {key: all_reduce(value, mesh.group("sep")).numpy() for key, value in sums.items()}


def compared(name: str, mesh: Mesh, change: Change = nothing, **changes: Any) -> dict[str, float]:
    """Return the relative difference of losses, and the largest difference of a gradient over its largest value."""
    here, alone = trained(name, mesh, change, **changes), trained(name, Mesh(), change, **changes)
    assert here.keys() == alone.keys()
    biggest = {key: float(np.abs(value).max()) for key, value in alone.items()}
    away = {key: float(np.abs(here[key] - value).max()) for key, value in alone.items()}
    loss = away.pop("loss") / biggest.pop("loss")
    return {"loss": loss, "gradient": max(away[key] / max(biggest[key], 1e-3) for key in away)}


def with_noise(model: CausalLM, family: Any) -> None:
    """Add noise to embedded tokens."""
    EmbeddingNoise(model, family, alpha=5.0, seed=3).expect(batch_of(model.config), 0)


def with_lora(model: CausalLM, family: Any) -> None:
    """Train an adapter."""
    new_adapter(model, family, LoraSettings(rank=4, alpha=8))


def dropped(mesh: Mesh) -> dict[str, Any]:
    """Train with every kind of dropout: once, again, with recomputation, and without any; look at what is dropped."""
    rates = {"embedding_dropout": 0.3, "output_dropout": 0.3, "attention_dropout": 0.3}
    runs = {
        "once": trained("gpt3", mesh, **rates),
        "again": trained("gpt3", mesh, **rates),
        "recomputed": trained("gpt3", mesh, lambda model, _: apply_recompute(model, "full"), **rates),
        "core": trained("gpt3", mesh, lambda model, _: apply_recompute(model, "core_attn"), **rates),
        "none": trained("gpt3", mesh),
    }
    away = {
        name: max(float(np.abs(runs["once"][key] - value).max()) for key, value in run.items())
        for name, run in runs.items()
    }
    return {"away": away, "zeros": zeros(mesh)}


def zeros(mesh: Mesh) -> list[list[bool]]:
    """Return which entries of the embedded tokens each rank drops."""
    family = load_family("gpt3")
    config = dataclasses.replace(family.card.sizes["tiny"], embedding_dropout=0.5)
    model = share_rows(family.build_model(config), mesh)
    model.train()
    seed_all(3, 0, mesh.index("sep"))
    hidden = model.embed(paddle.zeros([1, 8], "int64"), paddle.zeros([1, 8], "int64"))
    return mesh.gather((hidden.flatten() == 0).numpy().tolist(), "what was dropped")


def stretched(config: Any) -> Any:
    """Return a qwen of the first generation, made for rows of 8 tokens: angles and scales follow from the length."""
    scaling = dataclasses.replace(config.rotary.scaling, original_max_positions=8)
    rotary = dataclasses.replace(config.rotary, scaling=scaling)
    return dataclasses.replace(config, logn_length=8, rotary=rotary, init_std=0.5)


def evaluated(family: Any, config: Any, mesh: Mesh) -> list[list[float]]:
    """Return the figures of a batch, of one process and of ranks that share rows."""
    found = []
    for where in (Mesh(), mesh):
        seed_all(3)
        model = share_rows(family.build_model(config), where)
        model.eval()
        (score,) = score_batches(WholeModel(model), [batch_of(config)])
        found.append(list(dataclasses.astuple(score)))
    return found


def lengths(mesh: Mesh) -> list[int]:
    """Return the length of the batch's rows, and of the hidden states of this rank."""
    family = load_family("llama")
    model = share_rows(family.build_model(family.card.sizes["tiny"]), mesh)
    inputs = to_inputs(batch_of(model.config), model.config)
    return [inputs.ids_BS.shape[1], model(inputs.ids_BS, inputs.positions, inputs.mask).shape[1]]


def main(result: Path) -> None:
    """Do everything and write it down."""
    qwen = load_family("qwen")
    with open_mesh(ParallelPlan(sep=2), timeout_s=60) as mesh:
        found = {
            "attention": {name: shared(case, mesh) for name, case in ATTENTION.items()},
            "families": {name: compared(name, mesh) for name in installed().families},
            "noise": {name: compared(name, mesh, with_noise) for name in ("llama", "glm")},
            "lora": compared("llama", mesh, with_lora),
            "sparse": compared("llama", mesh, batches=sparse_batch),
            "pairs": [
                compared("llama", mesh, batches=pairs, objective=Preference(PreferenceLoss(kind=kind, beta=0.5), None))
                for kind, pairs in (("ipo", pairs_of), ("sigmoid", short_pairs_of))
            ],
            "dropout": dropped(mesh),
            "evaluation": {
                name: evaluated(load_family(name), load_family(name).card.sizes["tiny"], mesh)
                for name in ("llama", "chatglm")
            },
            "stretched": evaluated(qwen, stretched(qwen.card.sizes["tiny-v1"]), mesh),
            "lengths": lengths(mesh),
        }
        mesh.meet("the end")
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
