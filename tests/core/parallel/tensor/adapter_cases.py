"""An adapter on a split model or on a whole one: what ranks and the one process beside them compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import fill
from llm_run.core.convert.logical import parameters
from llm_run.core.ops import linear_cross_entropy
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.tensor.arrays import cut
from llm_run.core.parallel.tensor.build import build_random
from llm_run.core.parallel.tensor.model import model_parts
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family

Found = dict[str, np.ndarray]
KINDS = {"lora": LoraSettings(rank=3, alpha=6), "dora": LoraSettings(rank=3, alpha=6, dora=True)}
COPIED = "llama-tiny"
"""Has fewer key/value heads than four ranks."""


def chosen(names: list[str], size: int) -> list[tuple[str, str]]:
    """Return what is computed: each family's smallest model, and one with DoRA; four ranks copy heads."""
    smallest = [name for name in names if name.endswith("-tiny")] if size == 2 else [COPIED]
    return [*((name, "lora") for name in smallest), (COPIED, "dora")]


def compute(
    case: tuple[Family, ModelConfig],
    given: dict[str, Any],
    values: Callable[[str, tuple[int, ...]], np.ndarray],
    kind: str,
    mesh: Mesh,
) -> tuple[CausalLM, Found]:
    """Return the loss, what A began with and the gradients of a split model with an adapter.

    Args:
        case: of ``cases.cases``.
        given: ``cases.batch``.
        values: ``cases.scrambled``.
        kind: of the adapter.
        mesh: of the ranks, or of one process.
    """
    family, config = case
    model = build_random(family, config, mesh)
    parts = model_parts(model)
    for each, parameter in parameters(model).items():
        fill(parameter, cut(values(each, parts[each].shape), parts[each]))
    new_adapter(model, family, KINDS[kind], seed=5)
    parts = model_parts(model)
    trained = {each: parameter for each, parameter in parameters(model).items() if not parameter.stop_gradient}
    found = {f"drawn {each}": p.numpy() for each, p in trained.items() if each.endswith("lora_A")}
    for each, parameter in trained.items():
        if each.endswith("lora_B"):
            fill(parameter, cut(values(each, parts[each].shape), parts[each]))
    model.train()
    hidden_BSH = model(*given["inputs"], given["mask"])
    loss, count = linear_cross_entropy(hidden_BSH, model.head, given["labels_BS"])
    (loss / count).backward()
    found["loss"] = np.array((loss / count).item())
    return model, found | {f"gradient {each}": p.grad.numpy() for each, p in trained.items()}
