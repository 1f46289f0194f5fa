"""What the ranks and the one process beside them compute: the same models on the same batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import paddle

from llm_run.core.causal_lm import CausalLM
from llm_run.core.ops import AttentionMask, linear_cross_entropy, token_scores
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import installed, load_family

LENGTH = 15
"""Odd, so that rows do not split evenly over two ranks."""
UNEVEN = {"llama-tiny": 509, "gpt3-tiny": 511, "baichuan-tiny": 511}
"""Vocabularies that do not split evenly over the ranks."""
FOUR = ("llama-tiny", "llama-tiny-bias", "qwen-tiny-v2", "chatglm2-tiny")
"""Computed by four ranks: there are more of them than key/value heads."""
PECULIAR = ("llama-tiny-bias", "opt-tiny-350m", "qwen-tiny-v2")
"""Computed with sequence parallelism besides each family's ``tiny``: biases, norms behind sums, a projection."""


def is_computed(name: str, kind: str) -> bool:
    """Say whether ranks compute a case with ``sequence`` parallelism on top of ``tensor`` parallelism."""
    return kind == "tensor" or name.endswith("-tiny") or name in PECULIAR


def cases() -> dict[str, tuple[Family, ModelConfig]]:
    """Return every tiny size of every family, with two layers: ranks on a busy machine wait long for each other."""
    found = {}
    for family in map(load_family, installed().families):
        for size, config in family.card.sizes.items():
            if size.startswith("tiny"):
                name = f"{family.card.name}-{size}"
                found[name] = family, replace(config, num_layers=2, vocab_size=UNEVEN.get(name, config.vocab_size))
    return found


def batch(config: ModelConfig) -> dict[str, Any]:
    """Return a row of two packed samples with padding, and a full row; prompts see themselves where the family says."""
    random = np.random.default_rng(5)
    ids_BS = random.integers(20, config.vocab_size - 30, [2, LENGTH])
    segments_BS = np.array([[1] * 6 + [2] * 7 + [0] * 2, [1] * LENGTH], dtype=np.int32)
    prefix_BS = np.zeros([2, LENGTH], dtype=bool)
    if config.prefix_lm:
        prefix_BS[0, [0, 1, 2, 6, 7]] = prefix_BS[1, :5] = True
    labels_BS = random.integers(0, config.vocab_size, [2, LENGTH])
    labels_BS[segments_BS == 0] = labels_BS[0, 3] = -100
    positions = config.positions(ids_BS, segments_BS, prefix_BS)
    prefix = paddle.to_tensor(prefix_BS) if config.prefix_lm else None
    return {
        "inputs": (paddle.to_tensor(ids_BS), paddle.to_tensor(positions)),
        "mask": AttentionMask(paddle.to_tensor(segments_BS), prefix),
        "labels_BS": paddle.to_tensor(labels_BS),
        "is_real_BS": segments_BS > 0,
    }


def scrambled(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return values for a logical parameter in which no two entries play the same part."""
    random = np.random.default_rng([len(name), *name.encode()])
    centre = 1.0 if name.endswith("norm.weight") else 0.0
    return (centre + 0.15 * random.standard_normal(shape)).astype("float32")


def compute(model: CausalLM, config: ModelConfig) -> dict[str, np.ndarray]:
    """Return hidden states, loss (two ways), scores of tokens, and gradients of this process's own parameters."""
    given = batch(config)
    model.train()
    hidden_BSH = model(*given["inputs"], given["mask"])
    loss, count = linear_cross_entropy(hidden_BSH, model.head, given["labels_BS"], chunk_tokens=17)
    (loss / count).backward()
    found = {f"gradient {name}": p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    model.clear_gradients(set_to_zero=False)
    with paddle.no_grad():
        again, _ = linear_cross_entropy(hidden_BSH, model.head, given["labels_BS"], chunk_tokens=17)
        flat_TH, labels_T = hidden_BSH.flatten(0, 1), given["labels_BS"].flatten()
        losses_T, is_best_T = token_scores(flat_TH, model.head, labels_T.clip(min=0))
        logits_TV = model.head(flat_TH)
    real = given["is_real_BS"]
    return found | {
        "hidden": hidden_BSH.numpy()[real], "logits": logits_TV.numpy()[real.ravel()],
        "loss": np.array([(loss / count).item(), (again / count).item()]),
        "losses": losses_T.numpy()[real.ravel()], "is best": is_best_T.numpy()[real.ravel()],
    }  # fmt: skip
